#!/bin/sh
# The estimate: asked for alone, compared with what happened, and as the reason to refuse before the first byte.
. "${srcdir:-.}/tests/lib.sh"
start_pair
boot alpha g1 pc 256M "fill=text:30,rand:20 dirty=rand:48:20"
start_heartbeat g1

say "what it would take"
nova alpha estimate g1 --to beta --bandwidth 200M --json >"$tmp/estimate"
! at_speed || jq -e '.memory_bytes == 256 * 1048576 and .wire_bytes > 0 and .time_ms > 0 and .downtime_ms > 0 and .ratio >= 1
	and .dirty_bytes_per_s > 1048576 and .link_bytes_per_s > 5000000 and .link_bytes_per_s < 30000000
	and .full_share > 0.1 and .full_share < 1 and (.basis.history | startswith("none"))' <"$tmp/estimate" >/dev/null ||
	fail "a strange estimate: $(cat "$tmp/estimate")"

say "refused: it would never end at this rate"
job=$(start_migration alpha g1 --bandwidth 16M --on-stall abort)
expect_outcome alpha "$job" undone 30
expect_error alpha "$job" 'would not converge.*nothing was sent.*--ignore-estimate'
[ "$(job_field alpha "$job" '.report.raw_bytes // 0')" = 0 ] || fail "bytes of the guest went before the refusal"
job=$(start_migration alpha g1 --bandwidth 16M --max-time 2s)
expect_outcome alpha "$job" undone 30
expect_error alpha "$job" 'nothing was sent'
no_trace_of beta g1 || fail "something is left on beta"

say "compared with what happened"
move alpha g1 --estimate
jq -e '.estimate.wire_bytes == .estimated_wire_bytes and .estimated_time_ms > 0 and .downtime_ms >= 0' <"$tmp/report" >/dev/null ||
	fail "no comparison in the report: $(cat "$tmp/report")"
runs_only_on g1 beta 5

say "nobody to ask"
status=0
nova beta estimate g1 --to gamma >"$tmp/out" 2>&1 || status=$?
[ "$status" != 0 ] && grep -q "no peer 'gamma'" "$tmp/out" || fail "an unknown peer: $(cat "$tmp/out")"
[ -z "$(find "$tmp" -name '*.mem')" ] || fail "a sample of memory was left"
finish
