#!/bin/sh
# --on-stall throttle: the guest is slowed down until it fits the link; then it runs at full speed on the other side.
dirty_mib_s=8
. "${srcdir:-.}/tests/integration/stall.inc"
job=$(start_migration alpha g1 --bandwidth 60M --downtime 500ms --on-stall throttle)
expect_outcome alpha "$job" completed 115
job_field alpha "$job" .report >"$tmp/report"
jq -e '[.convergence | .. | strings] | any(test("throttle"))' <"$tmp/report" >/dev/null ||
	fail "nobody throttled: $(cat "$tmp/report")"
runs_only_on g1 beta 5
finish
