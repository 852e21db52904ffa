#!/bin/sh
# The cap holds within 5 % over 10 s, and a change of it is followed within 1 s. Counted by the kernel, on the wire.
rand_mib=130
. "${srcdir:-.}/tests/integration/slow.inc"
. "${srcdir:-.}/tests/integration/rate.inc"
start_pair
boot_slow

job=$(start_migration alpha g1 --bandwidth 30M)
wait_for "pages flow" 30 has_streamed alpha 8
expect_rate 30000 10
nova alpha bandwidth "$job" 15M >/dev/null
wait_for "the clock" 5 clock_past $(($(now_ms) + 1000))
expect_rate 15000 10
nova alpha bandwidth "$job" 60M >/dev/null
wait_for "the clock" 5 clock_past $(($(now_ms) + 1000))
expect_rate 60000 5
nova alpha bandwidth "$job" 0 >/dev/null
expect_outcome alpha "$job" completed 60
runs_only_on g1 beta 5
finish
