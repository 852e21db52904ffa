#!/bin/sh
# A guest that does not run moves cold with its disks, and back: they are the same over there, holes stay holes, and on the
# way back only what differs is sent. A cut of the connection meanwhile is nothing; a daemon that dies leaves everything
# as it was.
. "${srcdir:-.}/tests/lib.sh"
requires qemu-img
prepare_pair
start_proxy
set_option alpha resume-limit 4s
set_option beta resume-limit 4s
start_daemon alpha
start_daemon beta
mkdir -p "$tmp/alpha/disks" "$tmp/beta/disks"
head -c 24M /dev/urandom >"$tmp/alpha/disks/b.raw"
truncate -s 128M "$tmp/alpha/disks/b.raw"
qemu-img convert -O qcow2 "$tmp/alpha/disks/b.raw" "$tmp/alpha/disks/a.qcow2"
cp "$tmp/alpha/disks/a.qcow2" "$tmp/first.qcow2"
nova alpha create g1 --memory 64M --disk "path=$tmp/alpha/disks/a.qcow2" --disk "path=$tmp/alpha/disks/b.raw,format=raw" >/dev/null

same_disks() { # HOST HOST
	qemu-img compare -q "$tmp/$1/disks/a.qcow2" "$tmp/$2/disks/a.qcow2" && cmp -s "$tmp/$1/disks/b.raw" "$tmp/$2/disks/b.raw"
}

say "the source's daemon dies"
job=$(start_migration alpha g1 --mode cold --bandwidth 60M --disk-pool "$tmp/beta/disks")
wait_for "disks flow" 30 has_streamed alpha 4
stop_daemon alpha KILL
start_daemon alpha
expect_outcome alpha "$job" undone 20
wait_for "the reservation on beta is gone" 20 no_trace_of beta g1
[ -z "$(ls "$tmp/beta/disks")" ] || fail "left at the destination: $(ls "$tmp/beta/disks")"
guest_is alpha g1 stopped || fail "g1 is $(guest_state alpha g1)"
[ -z "$(qemu_pid alpha g1)" ] || fail "a QEMU is left at the source"
qemu-img compare -q "$tmp/first.qcow2" "$tmp/alpha/disks/a.qcow2" || fail "the source's disk changed"

say "there, with a cut"
job=$(start_migration alpha g1 --mode cold --bandwidth 60M --disk-pool "$tmp/beta/disks")
wait_for "disks flow" 30 has_streamed alpha 4
proxy reset
expect_outcome alpha "$job" completed 60
job_field alpha "$job" .report >"$tmp/report"
first=$(jq "[.disks[].encoded_bytes] | add" "$tmp/report")
say "$(jq -c '{disks, reconnects, resent_bytes, wire_bytes, total_ms}' "$tmp/report")"
guest_is beta g1 stopped || fail "g1 is $(guest_state beta g1) at beta"
no_trace_of alpha g1 || fail "a trace of g1 at alpha"
same_disks alpha beta || fail "the disks differ"
[ "$(du -k "$tmp/beta/disks/b.raw" | cut -f 1)" -lt 30000 ] || fail "the holes of b.raw were filled"

say "back, with a few changes"
head -c 100000 /dev/urandom | dd of="$tmp/beta/disks/b.raw" bs=1000 seek=5000 conv=notrunc 2>/dev/null
job=$(start_migration beta g1 --mode cold --disk-pool "$tmp/alpha/disks")
expect_outcome beta "$job" completed 60
job_field beta "$job" .report >"$tmp/report"
second=$(jq "[.disks[].encoded_bytes] | add" "$tmp/report")
say "$(jq -c '{disks, wire_bytes, total_ms}' "$tmp/report")"
[ "$second" -lt $((first * 15 / 100)) ] || fail "the way back took $second bytes of disks, the way there $first"
same_disks alpha beta || fail "the disks differ after the way back"
[ "$(cd "$tmp/alpha/disks" && echo *)" = "a.qcow2 b.raw" ] || fail "files at home: $(ls "$tmp/alpha/disks")"
qemu-img check -q "$tmp/alpha/disks/a.qcow2" || fail "qemu-img check finds errors"
finish
