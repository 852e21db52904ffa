#!/bin/sh
# Snapshot and restore of a running container by the engine's checkpoints, with a CRIU that works on this kernel: the
# counter goes on from where it was. Without a CRIU the engine's own words are passed on, and the container runs on.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
prepare_alone
make_rootfs
start_runtime docker
start_daemon alpha
nova alpha import "$tmp/alpha/fs.tar" --driver docker --name bb:1 >/dev/null
create_guest docker g1 >/dev/null
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"

if ! command -v criu >/dev/null; then
	say "no CRIU: refused with the reason"
	expect_refused 'criu' nova alpha snapshot g1 s0
	guest_is alpha g1 running || fail "g1 is $(guest_state alpha g1) after a snapshot that failed"
	counts g1 || fail "g1 does not count after a snapshot that failed"
fi

say "with a CRIU that works"
"$top/tests/criu-private" "${NOVA_CRIU_CACHE:-$tmp/criu}" || { nova alpha delete g1 --force >/dev/null; say "skipped: no CRIU that works"; exit 77; }
kill "$(cat "$tmp/dockerd.own")"
wait "$(cat "$tmp/dockerd.own")" || :
PATH=${NOVA_CRIU_CACHE:-$tmp/criu}/bin:$PATH
export PATH
start_docker
wait_for "g1's end with the engine is seen" 15 not_running alpha g1
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"
before=$(count_of g1)
nova alpha snapshot g1 s1 >/dev/null
at_snapshot=$(count_of g1)
guest_is alpha g1 running || fail "g1 is $(guest_state alpha g1) after a snapshot"
expect_refused 'exists' nova alpha snapshot g1 s1
wait_for "g1 counts on" 10 counted_past g1 $((at_snapshot + 20))
expect_refused 'no snapshot' nova alpha restore g1 s2
nova alpha restore g1 s1 >/dev/null
guest_is alpha g1 running || fail "g1 is $(guest_state alpha g1) after restore"
wait_for "the counter goes back" 5 counted_below g1 $((at_snapshot + 20))
after=$(count_of g1)
[ "$after" -ge "$before" ] || fail "the counter began again: $after"
counts g1 || fail "g1 does not count after restore"
say "snapshot at $at_snapshot, after restore $after"
nova alpha delete g1 --force >/dev/null
finish_alone
