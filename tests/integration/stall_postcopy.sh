#!/bin/sh
# --on-stall postcopy: the guest runs at the destination, and fetches what is missing.
. "${srcdir:-.}/tests/integration/stall.inc"
sum=$(guest_sum alpha g1)
job=$(start_migration alpha g1 --bandwidth 60M --on-stall postcopy)
expect_outcome alpha "$job" completed 110
[ "$(job_field alpha "$job" .report.postcopy)" = true ] || fail "it did not go to postcopy"
[ "$(guest_sum beta g1)" = "$sum" ] || fail "memory changed on the way"
runs_only_on g1 beta 5
finish
