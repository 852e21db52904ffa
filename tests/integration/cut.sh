#!/bin/sh
# The connection dies during precopy: reset and refused from then on, or silent. Without a way back within the limit
# (2 s here) the guest goes on at the source; with one (a reset that is all) the migration goes on and completes.
. "${srcdir:-.}/tests/integration/slow.inc"
prepare_pair
start_proxy
set_option alpha resume-limit 2s
set_option beta resume-limit 2s
start_daemon alpha
start_daemon beta
boot_slow

for fault in refuse hole; do
	say "the connection dies: $fault"
	begin_slow_move
	proxy "$fault"
	expect_outcome alpha "$job" undone 30
	expect_error alpha "$job" 'beta|link|connection|peer'
	expect_back_at_source 30
	proxy pass
done
finish
