#!/bin/sh
# qemu-user: guests run as a user of their own. They start, move with their disk, and are failed over to their replica.
. "${srcdir:-.}/tests/lib.sh"
requires qemu-img
chmod 711 "$tmp"
mkdir -p "$tmp/boot" "$tmp/alpha/disks" "$tmp/beta/disks"
cp "$NOVA_GUEST/vmlinuz" "$NOVA_GUEST/initrd" "$tmp/boot"
chmod -R a+rX "$tmp/boot"
NOVA_GUEST=$tmp/boot
prepare_pair
chmod 711 "$tmp/alpha" "$tmp/beta" "$tmp/alpha/disks" "$tmp/beta/disks"
for host in alpha beta; do
	set_option $host qemu-user nobody
	start_daemon $host
done

runs_as_nobody() { # HOST GUEST
	[ "$(ps -o user= -p "$(qemu_pid "$1" "$2")")" = nobody ] || fail "the QEMU of $2 on $1 is not nobody's: $(ps -o user=,args= -p "$(qemu_pid "$1" "$2")")"
}

points() { # COUNT
	[ "$(nova beta replicate show g1 --json | jq -r '.points // 0')" -ge "$1" ]
}

is_handed_over() {
	[ "$(nova beta replicate show g1 --json | jq -r .state)" = handed-over ]
}

say "a guest starts, and its disk is its own"
boot alpha g1 pc 128M "fill=text:1 dirty=none disk=vda:8:1" --disk "path=$tmp/alpha/disks/system.qcow2,size=24M"
runs_as_nobody alpha g1
[ "$(stat -c %U "$tmp/alpha/disks/system.qcow2")" = nobody ] || fail "the disk belongs to $(stat -c %U "$tmp/alpha/disks/system.qcow2")"

say "it moves with its disk"
nova alpha migrate g1 --to beta --disk-pool "$tmp/beta/disks" >"$tmp/out" 2>&1 || fail "not moved: $(cat "$tmp/out")"
wait_for "g1 runs on beta" 10 guest_is beta g1 running
runs_as_nobody beta g1

say "it is replicated, a copy is tested, its host is lost, and it runs from the replica"
nova beta replicate create g1 --to alpha --every 1s >/dev/null
wait_for "points" 40 points 2
nova alpha failover g1 --test >"$tmp/out" 2>&1 || fail "a test: $(cat "$tmp/out")"
runs_as_nobody alpha g1-test
nova alpha delete g1-test --force >/dev/null
kill -9 "$(qemu_pid beta g1)"
wait_for "beta knows that g1 does not run" 5 not_running beta g1
nova alpha failover g1 >"$tmp/out" 2>&1 || fail "failover: $(cat "$tmp/out")"
wait_for "g1 runs on alpha" 10 guest_is alpha g1 running
runs_as_nobody alpha g1

say "it moves back to where it was replicated: that replication is over, and it is not paused for it"
nova beta delete g1 --force >/dev/null
nova alpha migrate g1 --to beta --disk-pool "$tmp/beta/disks" >"$tmp/out" 2>&1 || fail "not moved back: $(cat "$tmp/out")"
wait_for "g1 runs on beta" 10 guest_is beta g1 running
wait_for "beta hears that g1 was started on alpha" 20 is_handed_over
guest_is beta g1 running || fail "g1 is $(guest_state beta g1) on beta: $(grep g1 "$tmp/beta.log" | tail -n 2)"
nova beta replicate resume g1 >/dev/null
wait_for "beta hears it again" 20 is_handed_over
guest_is beta g1 running || fail "g1 is $(guest_state beta g1) on beta after a resume"
for host in beta alpha; do
	nova $host replicate delete g1 >"$tmp/out" 2>&1 || fail "replicate delete: $(cat "$tmp/out")"
done
nova beta replicate create g1 --to alpha --every 1s >"$tmp/out" 2>&1 || fail "not replicated anew: $(cat "$tmp/out")"
wait_for "new points" 40 points 1
guest_is beta g1 running || fail "g1 is $(guest_state beta g1) on beta"
for host in beta alpha; do
	[ -z "$(guest_state $host g1)" ] || nova $host delete g1 --force >/dev/null
	nova "$host" replicate delete g1 >/dev/null 2>&1 || :
done
finish
