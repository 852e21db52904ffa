#!/bin/sh
# An LXC container moves between two daemons with its processes, by CRIU: the counter in its memory goes on from where it was.
# What fails before the commit, also the restore, leaves it running at the source, from where it was.
driver=lxc
. "${srcdir:-.}/tests/integration/boxmove.inc"
requires lxc-start lxc-checkpoint
find_criu || { say "skipped: no CRIU that works"; exit 77; }
prepare_boxes
set_option beta accept-checkpoints on
cleanup_fn clear_both
start_daemon alpha
start_daemon beta

create_box() { # GUEST [OPTION...]
	box=$1
	shift
	nova alpha create "$box" --driver lxc --rootfs "$tmp/alpha/fs.tar" --memory 64M --command /bin/sh --command -c --command "$counting" "$@" >/dev/null
	nova alpha start "$box" >/dev/null
	counts_on alpha "$box"
}

say "a console that is a file cannot be taken along"
create_box g1
refused_move 'console.*--console none.*--mode cold' --mode warm
nova alpha delete g1 --force >/dev/null

say "live is not to be had: it moves warm"
create_box g1 --console none
move_warm g1 live
jq -e '.mode == "warm" and .mode_asked == "live" and (.mode_why | test("moves warm"))' "$tmp/report" >/dev/null || fail "the report: $(cat "$tmp/report")"

say "failures before and after the restore"
create_box g3 --console none
refused_warm receive 'refused row receive'
refused_warm load 'refused row load'
refused_warm commit 'refused row commit'

say "a checkpoint that cannot be restored over there"
cat >"$tmp/beta.hook" <<-END
	#!/bin/sh
	[ "\$3 \$4 \$5" != "destination load run" ] || rm -f "$tmp"/beta/state/lxc/g3/checkpoint/core-*.img
	exit 0
END
warm_born=$(born_on alpha g3)
job=$(start_migration alpha g3 --mode warm)
expect_outcome alpha "$job" undone 60
expect_error alpha "$job" 'could not be restored'
fault_at beta none none
wait_for "nothing is left of g3 on beta" 10 no_trace_of beta g3
counts_on alpha g3
[ "$(born_on alpha g3)" = "$warm_born" ] || fail "g3 was started anew, and did not go on"
move_warm g3 warm
finish_boxes
