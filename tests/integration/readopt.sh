#!/bin/sh
# kill -9 of a daemon leaves its guests alone; the next one adopts them again, and can move them.
. "${srcdir:-.}/tests/lib.sh"
start_pair
boot alpha g1 pc 256M "fill=text:20,rand:10 dirty=verify:10:2"
boot alpha g2 q35 256M "fill=text:20"
sum=$(guest_sum alpha g1)
first_pid=$(qemu_pid alpha g1)
start_heartbeat g1
nova alpha pause g2 >/dev/null

for round in 1 2; do
	stop_daemon alpha KILL
	start_daemon alpha
	wait_for "g1 is adopted again" 5 guest_is alpha g1 running
	wait_for "g2 is adopted again" 5 guest_is alpha g2 paused
	[ "$(qemu_pid alpha g1)" = "$first_pid" ] || fail "g1 had QEMU $first_pid, now it is $(qemu_pid alpha g1)"
done
runs_only_on g1 alpha 5
expect_steady_heart g1 500
[ "$(guest_sum alpha g1)" = "$sum" ] || fail "memory changed"
move_checked alpha g1

say "a guest that ended while nobody watched"
kill -9 "$(qemu_pid alpha g2)"
stop_daemon alpha KILL
start_daemon alpha
wait_for "alpha knows that g2 does not run" 5 not_running alpha g2
finish
