#!/bin/sh
# A Docker container moves between two daemons with its processes, by CRIU: the counter in its memory goes on from where it
# was. A destination that takes no checkpoints, or fails before or after the restore, leaves it running at the source, from
# where it was. Live is not to be had, and says why.
driver=docker
. "${srcdir:-.}/tests/integration/boxmove.inc"
requires dockerd curl
find_criu || { say "skipped: no CRIU that works"; exit 77; }
prepare_boxes
cleanup_fn clear_engines
start_engine alpha
start_engine beta
start_daemon alpha
start_daemon beta
nova alpha import "$tmp/alpha/fs.tar" --driver docker --name bb:1 >/dev/null

create_box() { # GUEST
	nova alpha create "$1" --driver docker --image bb:1 --memory 64M --command /bin/sh --command -c --command "$counting" >/dev/null
	nova alpha start "$1" >/dev/null
	counts_on alpha "$1"
}
create_box g1

say "a destination that takes no checkpoints"
refused_move 'takes no checkpoints.*accept-checkpoints is off.*--mode cold' --mode warm
stop_daemon beta
set_option beta accept-checkpoints on
start_daemon beta

say "live is not to be had: it moves warm"
nova alpha drivers --json | jq -e '.[] | select(.name == "docker") | .facts | ."move-cold" == "yes" and (."move-live" | test("moves warm"))' >/dev/null ||
	fail "drivers: $(nova alpha drivers --json)"
move_warm g1 live
jq -e '.mode == "warm" and .mode_asked == "live" and (.mode_why | test("moves warm"))' "$tmp/report" >/dev/null || fail "the report: $(cat "$tmp/report")"

say "failures before and after the restore"
create_box g3
refused_warm receive 'refused row receive'
refused_warm load 'refused row load'
refused_warm commit 'refused row commit'

say "a checkpoint that cannot be restored over there"
spoil_restore() { # what arrives is taken apart before the restore
	cat >"$tmp/beta.hook" <<-END
	#!/bin/sh
	[ "\$3 \$4 \$5" != "destination load run" ] || rm -f "$tmp"/dk-beta/data/containers/*/checkpoints/novacron-move/core-*.img
	exit 0
	END
}
warm_born=$(born_on alpha g3)
spoil_restore
job=$(start_migration alpha g3 --mode warm)
expect_outcome alpha "$job" undone 60
expect_error alpha "$job" 'criu|checkpoint|restore'
fault_at beta none none
wait_for "nothing is left of g3 on beta" 10 no_trace_of beta g3
counts_on alpha g3
[ "$(born_on alpha g3)" = "$warm_born" ] || fail "g3 was started anew, and did not go on"
move_warm g3 warm
finish_boxes
