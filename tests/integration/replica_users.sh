#!/bin/sh
# Points of a guest arrive every second and old ones are merged, while points are exported one after the other and a copy of
# the guest runs for a while: everybody waits for everybody, nobody finds an image in use, and no point is missed.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/integration/replica.inc"
requires qemu-img qemu-nbd
start_pair
mkdir -p "$tmp/alpha/disks"
boot alpha g1 pc 128M "fill=text:1 dirty=none disk=vda:16:3,vdb:16:3" \
	--disk "path=$tmp/alpha/disks/system.qcow2,size=24M" --disk "path=$tmp/alpha/disks/data.raw,size=24M,format=raw"

no_failure() { # WHAT
	[ "$(shown alpha '.failures // 0')" = 0 ] || fail "$1: a point failed: $(shown alpha .error) $(grep -h 'point .* of guest' "$tmp/beta.log" | tail -n 3)"
}

nova alpha replicate create g1 --to beta --every 1s --keep 2 >/dev/null
wait_for "points, of which some are merged" 60 more_points alpha 4

say "exports, one after the other"
for number in $(seq 1 30); do
	nova beta replicate export g1 --disk disk$((number % 2)) --out "$tmp/beta/export.qcow2" --json >"$tmp/export" 2>"$tmp/export.err" ||
		fail "export $number: $(cat "$tmp/export.err")"
	qemu-img check -q "$tmp/beta/export.qcow2" || fail "export $number: qemu-img check finds errors"
	rm "$tmp/beta/export.qcow2"
done
no_failure "exports"

say "a copy that runs while points come"
for number in 1 2 3; do
	job=$(nova beta failover g1 --test --detach --json | jq -r .job)
	expect_outcome beta "$job" completed 60
	guest_is beta g1-test running || fail "the copy does not run"
	count=$(shown alpha .points)
	wait_for "points while the copy runs" 60 more_points alpha $((count + 5))
	no_failure "copy $number"
	nova beta delete g1-test --force >/dev/null
done
[ "$(shown beta '.points | length')" -le 9 ] || fail "points were not merged while a copy ran: $(shown beta '.points | length')"

count=$(shown alpha .points)
wait_for "points after the copies" 60 more_points alpha $((count + 2))
no_failure "after the copies"
[ "$(shown beta '[.points[] | select(.kind != "base")] | length')" -le 3 ] || fail "old points are left"
compare_newest "after the copies"
nova alpha delete g1 --force >/dev/null
for host in alpha beta; do
	nova "$host" replicate delete g1 >/dev/null
done
finish
