#!/bin/sh
# Ten moves in a row, there and back, under load: the memory never differs, the heart never misses a beat.
. "${srcdir:-.}/tests/lib.sh"
start_pair
boot alpha g1 pc 256M "fill=text:40,rand:20,dup:10 dirty=verify:30:4"
start_heartbeat g1
sum=$(guest_sum alpha g1)
host=alpha
for round in 1 2 3 4 5 6 7 8 9 10; do
	say "move $round, from $host"
	move "$host" g1
	host=$(other_host "$host")
	now=$(guest_sum "$host" g1)
	[ "$now" = "$sum" ] || fail "after move $round the memory is $now, it was $sum"
done
expect_steady_heart g1 3000
finish
