#!/bin/sh
# --on-stall abort: the guest goes on at the source, and nothing is left at the destination.
. "${srcdir:-.}/tests/integration/stall.inc"
job=$(start_migration alpha g1 --bandwidth 40M --on-stall abort --ignore-estimate)
expect_outcome alpha "$job" undone 110
expect_error alpha "$job" 'converge|stall|faster'
runs_only_on g1 alpha 5
guest_is alpha g1 running || fail "g1 is not running on alpha"
wait_for "beta has forgotten g1" 5 no_trace_of beta g1
expect_steady_heart g1 1000

# What the estimate says cannot be done is refused before anything is reserved or sent.
say "refused up front"
job=$(start_migration alpha g1 --bandwidth 15M --on-stall abort)
expect_outcome alpha "$job" undone 30
expect_error alpha "$job" 'would not converge.*nothing was sent'
guest_is alpha g1 running || fail "g1 is not running on alpha"
finish
