#!/bin/sh
# One cap for memory and disks: it holds within 5 % over 10 s while two disks are copied and while memory goes beside their
# changes, and a change of it is followed within 1 s.
. "${srcdir:-.}/tests/integration/slow.inc"
. "${srcdir:-.}/tests/integration/rate.inc"
start_pair
mkdir -p "$tmp/alpha/disks" "$tmp/beta/disks"
boot alpha g1 pc 256M "fill=text:10,rand:100 dirty=none disk=vda:32:0.5,vdb:32:0.5" \
	--disk "path=$tmp/alpha/disks/a.qcow2,size=64M" --disk "path=$tmp/alpha/disks/b.raw,size=64M,format=raw"

phase_is() { # JOB STEP
	[ "$(job_field alpha "$1" .step)" = "$2" ]
}

job=$(start_migration alpha g1 --bandwidth 20M --disk-pool "$tmp/beta/disks")
wait_for "disks flow" 30 has_streamed alpha 2
expect_rate 20000 10
nova alpha bandwidth "$job" 40M >/dev/null
wait_for "the clock" 5 clock_past $(($(now_ms) + 1000))
expect_rate 40000 4
wait_for "memory flows beside the disks" 60 phase_is "$job" precopy
wait_for "the clock" 5 clock_past $(($(now_ms) + 1000))
expect_rate 40000 10
nova alpha bandwidth "$job" 0 >/dev/null
expect_outcome alpha "$job" completed 60
finish
