#!/bin/sh
# The connection dies while the guest is paused for the switch-over. A reset: the last bytes go over a new connection. Dead
# for longer than the limit of the switch-over: rolled back, the guest runs on at the source.
. "${srcdir:-.}/tests/integration/resume.inc"
prepare_pair
start_proxy
hook_at none -
sed -i "1i fault-hook = $tmp/hook" "$tmp/alpha.conf"
set_option alpha resume-limit 20s
start_daemon alpha
start_daemon beta
boot_watched 256M "fill=text:20,rand:20 dirty=rand:10:2"

say "dead from the switch-over on"
hook_at switchover refuse
job=$(start_migration alpha g1 --bandwidth 80M)
expect_outcome alpha "$job" undone 60
expect_error alpha "$job" 'link to beta.*10000 ms'
runs_only_on g1 alpha 5
wait_for "the reservation on beta is gone" 40 no_trace_of beta g1

say "a reset in the middle of the last bytes"
proxy pass
hook_at switchover "after 30000 reset"
job=$(start_migration alpha g1 --bandwidth 80M)
expect_arrived 40 20
[ "$(jq .reconnects <"$tmp/report")" = 1 ] || fail "the connection was lost $(jq .reconnects <"$tmp/report") times, not once"
finish
