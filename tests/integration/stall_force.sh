#!/bin/sh
# --on-stall force: it moves, at the price of a longer pause than asked for, which the report shows.
. "${srcdir:-.}/tests/integration/stall.inc"
sum=$(guest_sum alpha g1)
move alpha g1 --bandwidth 60M --downtime 100ms --on-stall force
[ "$(guest_sum beta g1)" = "$sum" ] || fail "memory changed on the way"
runs_only_on g1 beta 5
jq -e '.downtime_ms > 100' <"$tmp/report" >/dev/null || fail "it converged after all: $(cat "$tmp/report")"
expect_steady_heart g1 20000
finish
