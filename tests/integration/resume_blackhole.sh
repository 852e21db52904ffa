#!/bin/sh
# For a minute nothing arrives in either direction, and nobody says so. Heartbeats notice, the user sees it, the guest runs
# on, and the migration completes when the link is back.
. "${srcdir:-.}/tests/integration/resume.inc"
prepare_pair
start_proxy
start_daemon alpha
start_daemon beta
boot_watched 512M "fill=text:20,rand:200 dirty=verify:10:1"

job=$(start_migration alpha g1 --bandwidth 100M)
watch_job
wait_for "pages flow" 30 has_streamed alpha 40
proxy hole
wait_for "the silence is noticed" 10 reconnecting_for 0
say "$(tail -n 1 "$tmp/watch" | jq -c '.data | {phase, reconnect_waited_ms, reconnect_limit_ms}')"
wait_for "a minute has passed" 70 reconnecting_for 55000
guest_is alpha g1 running || fail "g1 is not running on alpha meanwhile"
proxy pass
expect_arrived 60
expect_steady_heart g1 2000
finish
