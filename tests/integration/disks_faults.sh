#!/bin/sh
# A guest whose disks move with it, and what goes wrong meanwhile: either daemon dies while the disks are copied and while
# the memory is, the destination has no room, the destination's QEMU dies, the move is cancelled. Each time the guest goes
# on at the source from its own disks, the destination keeps nothing, and nothing the guest wrote is wrong. At last ten
# cuts of the connection in one move, which completes, and sends little more than without them.
. "${srcdir:-.}/tests/integration/slow.inc"
requires qemu-img
prepare_pair
start_proxy
set_option alpha resume-limit 4s
set_option beta resume-limit 4s
start_daemon alpha
start_daemon beta
mkdir -p "$tmp/alpha/disks" "$tmp/beta/disks" "$tmp/beta/small"
boot alpha g1 pc 256M "fill=text:10,rand:20 dirty=verify:10:1 disk=vda:10:1,vdb:10:1" \
	--disk "path=$tmp/alpha/disks/a.qcow2,size=64M" --disk "path=$tmp/alpha/disks/b.raw,size=64M,format=raw"
start_heartbeat g1

begin_move() { # MIB: return when so much has been sent
	job=$(start_migration alpha g1 --bandwidth 60M --lanes 1 --disk-pool "$tmp/beta/disks")
	wait_for "$1 MiB flow" 60 has_streamed alpha "$1"
}

expect_unharmed() {
	expect_back_at_source 20
	[ -z "$(ls "$tmp/beta/disks")" ] || fail "left at the destination: $(ls "$tmp/beta/disks")"
	sum=$(guest_sum alpha g1)
	case $sum in *" bad=0") ;; *) fail "the guest found wrong pages or blocks: $sum" ;; esac
}

for mib in 3 28; do
	say "the source's daemon dies after $mib MiB"
	begin_move $mib
	stop_daemon alpha KILL
	start_daemon alpha
	expect_outcome alpha "$job" undone 20
	expect_unharmed
	say "the destination's daemon dies after $mib MiB"
	begin_move $mib
	stop_daemon beta KILL
	expect_outcome alpha "$job" undone 20
	start_daemon beta
	expect_unharmed
	say "it is cancelled after $mib MiB"
	begin_move $mib
	nova alpha cancel "$job" >/dev/null
	expect_outcome alpha "$job" undone 20
	expect_unharmed
	say "the destination's QEMU dies after $mib MiB"
	begin_move $mib
	kill -9 "$(qemu_pid beta g1)"
	expect_outcome alpha "$job" undone 20
	expect_unharmed
done

say "the destination's pool has no room"
if mount -t tmpfs -o size=12m small "$tmp/beta/small" 2>/dev/null; then
	cleanup_fn umount "$tmp/beta/small"
	job=$(start_migration alpha g1 --disk-pool "$tmp/beta/small")
	expect_outcome alpha "$job" undone 60
	expect_error alpha "$job" "room|space"
	expect_back_at_source 20
	[ -z "$(ls "$tmp/beta/small")" ] || fail "left in the full pool: $(ls "$tmp/beta/small")"
	umount "$tmp/beta/small"
fi

port_now() {
	ss -Htn state established dst "$address" dport = ":$dialled_port" | awk '{ print $3 }'
}

port_changed() { # OLD
	now=$(port_now)
	[ -n "$now" ] && [ "$now" != "$1" ]
}

say "ten cuts"
begin_move 1
for cut in 1 2 3 4 5 6 7 8 9 10; do
	wait_for "cut $cut: bytes flow" 20 has_streamed alpha 1
	before=$(port_now)
	proxy reset
	wait_for "cut $cut: the connection is back" 10 port_changed "$before"
done
expect_outcome alpha "$job" completed 100
job_field alpha "$job" .report >"$tmp/report"
say "$(jq -c '{reconnects, resent_bytes, wire_bytes, disks, downtime_ms}' "$tmp/report")"
[ "$(jq .reconnects "$tmp/report")" -ge 10 ] || fail "less than 10 reconnects"
runs_only_on g1 beta 5
sum=$(guest_sum beta g1)
case $sum in *" bad=0") ;; *) fail "the guest found wrong pages or blocks: $sum" ;; esac
[ "$(cd "$tmp/beta/disks" && echo *)" = "a.qcow2 b.raw" ] || fail "at the destination: $(ls "$tmp/beta/disks")"
[ -z "$(ls "$tmp/alpha/disks")" ] || fail "its own disks are left at the source: $(ls "$tmp/alpha/disks")"
nova beta stop g1 --force >/dev/null
qemu-img check -q "$tmp/beta/disks/a.qcow2" || fail "qemu-img check finds errors"
finish
