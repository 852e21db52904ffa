#!/bin/sh
# --on-stall wait: it goes on as long as it takes; once the guest writes less, it moves within its budget.
. "${srcdir:-.}/tests/integration/stall.inc"
job=$(start_migration alpha g1 --bandwidth 60M --on-stall wait)
iterations() { # MORE-THAN
	timeout 2 "$NOVACRON" --socket "$tmp/alpha/run/control.sock" watch "$job" --json |
		jq -e "select(.event == \"JOB_PROGRESS\") | .data.iteration > $1" | grep -q true
}
wait_for "several rounds" 100 iterations 4
[ "$(job_field alpha "$job" .running)" = true ] || fail "it did not wait"
guest_console alpha g1 "rate 0" "WL-RATE 0" >/dev/null
expect_outcome alpha "$job" completed 60
runs_only_on g1 beta 5
expect_steady_heart g1 3000
finish
