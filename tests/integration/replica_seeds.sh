#!/bin/sh
# A guest with a replica on beta moves there: what the newest point holds of its disks is not sent again, and old points are not
# merged while it is read. The point that is being made then is waited for. Points of it rest while it is away, and go on, with
# what differs, when it is back.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/integration/replica.inc"
requires qemu-img qemu-nbd
start_pair
mkdir -p "$tmp/alpha/disks" "$tmp/beta/disks"
head -c 16M /dev/urandom >"$tmp/alpha/disks/data.raw"
truncate -s 32M "$tmp/alpha/disks/data.raw"
qemu-img create -q -f qcow2 "$tmp/alpha/disks/system.qcow2" 32M
boot alpha g1 pc 128M "fill=text:1 dirty=none disk=vda:1:0.1,vdb:1:0.1" \
	--disk "path=$tmp/alpha/disks/system.qcow2" --disk "path=$tmp/alpha/disks/data.raw,format=raw"

disk_sum() { # MEMBER: of all disks in the report
	jq "[.disks[].$1] | add" "$tmp/report"
}

nova alpha replicate create g1 --to beta --every 1s --keep 2 >/dev/null
wait_for "points" 60 more_points alpha 2
first=$(shown alpha '.wire_bytes')

say "to the standby"
move_checked alpha g1 --disk-pool "$tmp/beta/disks"
there=$(disk_sum encoded_bytes) same=$(disk_sum same_bytes)
say "the first point took $first bytes, the move $there of disks, $same were there: $(jq -c .disks "$tmp/report")"
! at_speed || [ "$there" -lt $((first / 4)) ] || fail "the move sent $there bytes of disks that the replica holds"
[ "$same" -gt $((15 << 20)) ] || fail "only $same bytes were taken from the replica"
[ "$(shown alpha .state)" = handed-over ] || fail "the replication is $(shown alpha .state) while its guest is away"
[ "$(shown beta .state)" = standby ] || fail "the replica is $(shown beta .state)"
qemu-img info -U "$tmp/beta/disks/system.qcow2" | grep -q "^backing file" && fail "disk0 stands on the replica"
guest_sum beta g1 >/dev/null

say "and back"
count=$(shown alpha .points) sent=$(shown alpha .wire_bytes)
move_checked beta g1 --disk-pool "$tmp/alpha/disks"
[ "$(shown alpha .state)" = active ] || fail "the replication is $(shown alpha .state) although its guest is back"
wait_for "points of the guest that is back" 60 more_points alpha $((count + 2))
more=$(($(shown alpha .wire_bytes) - sent))
say "$more bytes for $(($(shown alpha .points) - count)) points"
! at_speed || [ "$more" -lt $((first / 2)) ] || fail "$more bytes were sent: nearly everything once more"

compare_newest "after it is back"
nova alpha delete g1 --force >/dev/null
for host in alpha beta; do
	nova "$host" replicate delete g1 >/dev/null
done
finish
