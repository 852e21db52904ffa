#!/bin/sh
# Either QEMU dies during precopy. The destination's: the guest goes on at the source. The source's: there is no guest
# any more; both sides say so, and nothing is left.
. "${srcdir:-.}/tests/integration/slow.inc"
start_pair
boot_slow

say "the destination's QEMU dies"
begin_slow_move
kill -9 "$(qemu_pid beta g1)"
expect_outcome alpha "$job" undone 10
expect_back_at_source
expect_error alpha "$job" 'beta|destination|hypervisor|ended|signal'

say "the source's QEMU dies"
begin_slow_move
kill -9 "$(qemu_pid alpha g1)"
wait_for "the job ends" 10 job_ended alpha "$job"
[ "$(job_field alpha "$job" .outcome)" != completed ] || fail "a dead guest was moved"
expect_error alpha "$job" 'ended|exit|signal|killed'
wait_for "the reservation on beta is gone" 5 no_trace_of beta g1
wait_for "alpha knows that g1 does not run" 5 not_running alpha g1
finish
