#!/bin/sh
# The connection is reset 20 times while one guest moves: the migration completes, next to nothing is sent twice, and
# the guest notices nothing.
. "${srcdir:-.}/tests/integration/resume.inc"
cuts=20
prepare_pair
start_proxy
start_daemon alpha
start_daemon beta
boot_watched 256M "fill=text:20,rand:110 dirty=verify:10:1"

proxy "every 5000000 reset $cuts"
job=$(start_migration alpha g1 --bandwidth 100M)
expect_arrived 60
jq -e ".reconnects == $cuts" <"$tmp/report" >/dev/null || fail "the connection was lost $(jq .reconnects <"$tmp/report") times, not $cuts"
expect_steady_heart g1 2000
finish
