#!/bin/sh
# A peer with two addresses: the one in use falls silent for good, as behind a NAT that forgot, and the migration goes on
# over the other one.
. "${srcdir:-.}/tests/integration/resume.inc"
prepare_pair
start_proxy
"$NOVA_TOOLS/tcp_proxy" "$address" "$address:$(cat "$tmp/beta.port")" "$tmp/proxy2.fifo" >"$tmp/proxy2.port" 2>"$tmp/proxy2.log" &
echo $! >>"$tmp/helpers"
wait_for "the second proxy" 5 test -s "$tmp/proxy2.port"
write_config alpha beta "$address:$(cat "$tmp/proxy.port"),$address:$(cat "$tmp/proxy2.port")"
start_daemon alpha
start_daemon beta
boot_watched 256M "fill=text:20,rand:60 dirty=verify:10:1"

job=$(start_migration alpha g1 --bandwidth 80M)
wait_for "pages flow" 30 has_streamed alpha 8
proxy hole
expect_arrived 60 20
grep "session with beta (.*:$(cat "$tmp/proxy2.port")) resumed after" "$tmp/alpha.log" >&2 || fail "it did not go on over the second address"
expect_steady_heart g1 2000
finish
