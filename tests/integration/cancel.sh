#!/bin/sh
# novacron cancel: the guest stays where it was, the reservation goes, the job says who; then a move works.
. "${srcdir:-.}/tests/integration/slow.inc"
start_pair
boot_slow
begin_slow_move
nova alpha cancel "$job" >/dev/null
expect_outcome alpha "$job" undone 10
expect_error alpha "$job" 'cancelled by'
expect_back_at_source
nova alpha cancel "$job" 2>"$tmp/again" && fail "an ended job was cancelled again"
grep -q "$job" "$tmp/again" || fail "no word about the job: $(cat "$tmp/again")"
move_checked alpha g1
finish
