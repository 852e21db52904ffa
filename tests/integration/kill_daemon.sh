#!/bin/sh
# Either daemon dies (kill -9) during precopy and comes back: the guest never stops at the source, the reservation goes
# once the lost connection is given up (2 s here), the job says what happened, and the guest can be moved afterwards.
. "${srcdir:-.}/tests/integration/slow.inc"
prepare_pair
set_option alpha resume-limit 2s
set_option beta resume-limit 2s
start_daemon alpha
start_daemon beta
boot_slow

say "the source's daemon dies"
begin_slow_move
stop_daemon alpha KILL
start_daemon alpha
expect_back_at_source 10
expect_outcome alpha "$job" undone 10
expect_error alpha "$job" 'daemon|restart'

say "the destination's daemon dies"
begin_slow_move
stop_daemon beta KILL
expect_outcome alpha "$job" undone 15
expect_error alpha "$job" 'beta|link|connection'
runs_only_on g1 alpha 5
start_daemon beta
expect_back_at_source 10
move_checked alpha g1
finish
