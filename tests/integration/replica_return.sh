#!/bin/sh
# A guest's QEMU dies, its replica is started, and it comes back before its old host has heard of that: it runs at home, and stays
# running when the old host hears.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/integration/replica.inc"
requires qemu-img qemu-nbd
start_pair
mkdir -p "$tmp/alpha/disks"
boot alpha g1 pc 128M "fill=text:1 dirty=none disk=vda:1:0.1" --disk "path=$tmp/alpha/disks/system.qcow2,size=8M"

heard_of_start() {
	grep -q "replication of g1 to beta: handed-over" "$tmp/alpha.log"
}

# Attempts of a guest that has failed ask nobody; the next one after its return does.
nova alpha replicate create g1 --to beta --every 1s >/dev/null
wait_for "points" 40 more_points alpha 2
kill -9 "$(qemu_pid alpha g1)"
wait_for "g1 has failed" 10 guest_is alpha g1 failed
nova beta failover g1 >/dev/null
[ "$(shown alpha .state)" = active ] || fail "alpha has heard already: $(shown alpha .state)"
nova beta failback g1 --every 1s >/dev/null
wait_for "a point on alpha" 60 more_points beta 1
nova alpha failover g1 --planned --stop-timeout 5s >/dev/null
wait_for "alpha hears that beta had started it" 40 heard_of_start
guest_is alpha g1 running || fail "g1 is $(guest_state alpha g1) on alpha"
guest_sum alpha g1 >/dev/null
nova alpha delete g1 --force >/dev/null
for host in alpha beta; do
	nova "$host" delete g1 --force >/dev/null 2>&1 || :
	nova "$host" replicate delete g1 >/dev/null 2>&1 || :
	nova "$host" replicate delete g1 >/dev/null 2>&1 || :
done
finish
