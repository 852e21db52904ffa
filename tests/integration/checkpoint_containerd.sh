#!/bin/sh
# Snapshot and restore of a running container of containerd by CRIU, with one that works on this kernel: the counter goes on
# from where it was. Without a CRIU the snapshot is refused with the reason, and the container runs on.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
own_containerd_place "$0"
prepare_alone
make_rootfs
start_runtime containerd
start_daemon alpha
nova alpha import "$tmp/alpha/fs.tar" --driver containerd --name bb:1 >/dev/null
create_guest containerd g1 >/dev/null
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"

if ! command -v criu >/dev/null; then
	say "no CRIU: refused with the reason"
	verb_here containerd snapshot | grep -q 'criu' || fail "snapshot: $(verb_here containerd snapshot)"
	expect_refused 'criu' nova alpha snapshot g1 s0
	guest_is alpha g1 running || fail "g1 is $(guest_state alpha g1) after a snapshot that failed"
	counts g1 || fail "g1 does not count after a snapshot that failed"
	[ ! -e "$tmp/alpha/state/guests/g1/checkpoints/s0" ] || fail "a snapshot that failed is left"
fi

say "with a CRIU that works"
"$top/tests/criu-private" "${NOVA_CRIU_CACHE:-$tmp/criu}" || { nova alpha delete g1 --force >/dev/null; say "skipped: no CRIU that works"; exit 77; }
PATH=${NOVA_CRIU_CACHE:-$tmp/criu}/bin:$PATH
export PATH
# Shims have the PATH that containerd had when they were started.
nova alpha stop g1 >/dev/null
kill_containerd
start_containerd
stop_daemon alpha
start_daemon alpha
[ "$(verb_here containerd snapshot)" = true ] || fail "snapshot: $(verb_here containerd snapshot)"
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
nova alpha logs g1 --lines 3 | grep -q "count" || fail "logs: $(nova alpha logs g1)"
say "snapshot at $at_snapshot, after restore $after"
say "a checkpoint that is damaged: refused, the guest is stopped, and starts again"
rm "$tmp/alpha/state/guests/g1/checkpoints/s1/inventory.img"
expect_refused 'criu|inventory|image' nova alpha restore g1 s1
guest_is alpha g1 stopped || fail "g1 is $(guest_state alpha g1)"
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count after a restore that failed"
nova alpha delete g1 --force >/dev/null
finish_alone
