#!/bin/sh
# A guest whose disks (qcow2 on a backing file, raw) are written all the time has a replica on beta, seconds behind. Points are
# whole; a cut link, a killed daemon on either side and a killed QEMU cost time, or a comparison, and never a full copy.
# A copy is tested; the guest is taken over unplanned, and comes back planned: with what differs, and with all it wrote.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/integration/replica.inc"
requires qemu-img qemu-nbd
prepare_pair
start_proxy
set_option alpha resume-limit 2s
set_option beta resume-limit 2s
start_daemon alpha
start_daemon beta
mkdir -p "$tmp/alpha/disks"
head -c 12M /dev/urandom >"$tmp/base.raw"
truncate -s 48M "$tmp/base.raw"
qemu-img convert -O qcow2 "$tmp/base.raw" "$tmp/alpha/disks/base.qcow2"
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$tmp/alpha/disks/system.qcow2"
boot alpha g1 pc 128M "fill=text:1 dirty=none disk=vda:1:0.1,vdb:1:0.1" \
	--disk "path=$tmp/alpha/disks/system.qcow2" --disk "path=$tmp/alpha/disks/data.raw,size=24M,format=raw"

points() { # HOST: made so far
	shown "$1" '.points // 0'
}

sent_bytes() { # HOST
	shown "$1" '.wire_bytes // 0'
}

# And both go on.
compare_point() { # WHAT
	compare_newest "$1"
	nova alpha replicate resume g1 >/dev/null
	nova alpha resume g1 >/dev/null
}

# After a disturbance: two more points, and far less than everything was sent for them.
goes_on() { # WHAT SECONDS
	wait_for "points after $1" "$2" more_points alpha $((count + 2))
	more=$(($(sent_bytes alpha) - before))
	say "$1: $more bytes for $(($(points alpha) - count)) points (the first took $first)"
	! at_speed || [ "$more" -lt $((first / 2)) ] || fail "$1: $more bytes were sent: nearly everything once more"
}

disturb() {
	count=$(points alpha) before=$(sent_bytes alpha)
}

say "points every second"
nova alpha replicate create g1 --to beta --every 1s --keep 3 >/dev/null
wait_for "a first point" 40 more_points alpha 1
first=$(sent_bytes alpha)
wait_for "more of them" 30 more_points alpha 4
shown alpha '{points, wire_bytes, last}|tostring' >&2
compare_point "at first"
[ "$(shown beta '[.points[] | select(.kind != "base")] | length')" -le 3 ] || fail "more points are kept than were asked for"

say "the link is gone for longer than it is waited for"
disturb
proxy refuse
wait_for "the replica is late" 20 sh -c "'$NOVACRON' --socket '$tmp/alpha/run/control.sock' replicate show g1 --json | jq -e .late"
[ "$(shown alpha .violations)" -ge 1 ] || fail "nothing was said of the lateness"
proxy pass
goes_on "a cut link" 30

say "daemons are killed"
for host in beta alpha; do
	disturb
	stop_daemon "$host" KILL
	start_daemon "$host"
	goes_on "a killed daemon of $host" 40
done
compare_point "after daemons were killed"

say "QEMU is killed"
disturb
kill -9 "$(qemu_pid alpha g1)"
wait_for "g1 has failed" 10 not_running alpha g1
nova alpha start g1 >/dev/null
goes_on "a killed QEMU" 60

say "a marker, a copy that is tested"
guest_console alpha g1 "sh echo marker-of-g1 | dd of=/dev/vdb bs=512 seek=40000 conv=sync,fsync 2>/dev/null && echo WL-MARK\$((1))" "WL-MARK1" 30 >/dev/null
since=$(date +%s%3N)
wait_for "a point with the marker" 30 newest_since alpha "$since"
job=$(nova beta failover g1 --test --detach --json | jq -r .job)
expect_outcome beta "$job" completed 40
guest_is beta g1-test running || fail "the copy does not run"
[ "$(nova beta show g1-test --json | jq '.spec.net // [] | length')" = 0 ] || fail "the copy has a network"
disturb
nova beta delete g1-test --force >/dev/null
goes_on "a test" 30

newest=$(shown beta .newest)
nova beta replicate export g1 --disk disk1 --out "$tmp/beta/export.qcow2" --json >"$tmp/export"
[ "$(jq .point "$tmp/export")" -ge "$newest" ] || fail "another point was exported: $(cat "$tmp/export")"
qemu-img convert -O raw "$tmp/beta/export.qcow2" "$tmp/export.raw"
[ "$(dd if="$tmp/export.raw" bs=512 skip=40000 count=1 2>/dev/null | tr -d '\0')" = marker-of-g1 ] || fail "the marker is not in the exported disk"

say "unplanned, while the old side runs: it is paused there as soon as it is heard of"
"$NOVACRON" --socket "$tmp/alpha/run/control.sock" metrics --json | jq -e '.novacron_replica_points_total.g1 > 0 and .novacron_replica_violations_total.g1 > 0' >/dev/null ||
	fail "metrics of the replication are missing"
job=$(nova beta failover g1 --detach --json | jq -r .job)
expect_outcome beta "$job" completed 60
guest_is beta g1 running || fail "g1 does not run on beta"
wait_for "g1 is paused on alpha" 20 guest_is alpha g1 paused
guest_sum beta g1 >/dev/null
guest_console beta g1 "sh dd if=/dev/vdb bs=512 skip=40000 count=1 2>/dev/null | tr -d '\\\\000'" "marker-of-g1" 30 >/dev/null
kill -9 "$(qemu_pid alpha g1)" # as if the disaster had come to that
wait_for "g1 has failed on alpha" 10 guest_is alpha g1 failed

say "and back, planned"
nova beta failback g1 --every 1s >/dev/null
wait_for "a point on alpha" 60 more_points beta 2
back=$(sent_bytes beta)
say "the way back: $back bytes"
! at_speed || [ "$back" -lt $((first / 2)) ] || fail "the way back took $back bytes, the way there $first"
guest_console beta g1 "sh echo later-of-g1 | dd of=/dev/vdb bs=512 seek=40001 conv=sync 2>/dev/null && echo WL-MARK\$((2))" "WL-MARK2" 30 >/dev/null
job=$(nova alpha failover g1 --planned --stop-timeout 20s --detach --json | jq -r .job)
expect_outcome alpha "$job" completed 90
guest_is beta g1 stopped || fail "g1 is $(guest_state beta g1) on beta"
guest_sum alpha g1 >/dev/null
guest_console alpha g1 "sh dd if=/dev/vdb bs=512 skip=40000 count=2 2>/dev/null | tr -d '\\\\000'" "later-of-g1" 30 >/dev/null

for host in alpha beta; do
	nova "$host" delete g1 --force >/dev/null
	nova "$host" replicate delete g1 >/dev/null
	nova "$host" replicate delete g1 >/dev/null 2>&1 || :
	[ -z "$(ls -d "$tmp/$host"/*.replica-* 2>/dev/null)" ] || fail "images of a replica that was deleted are left: $(ls "$tmp/$host"/*.replica-*)"
done
[ -z "$(ls "$tmp/alpha/disks" | grep nova-point)" ] || fail "files at home: $(ls "$tmp/alpha/disks")"
finish
