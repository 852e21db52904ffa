#!/bin/sh
# The direct path: QEMU's own multifd with TLS between the two QEMUs, set up, committed and rolled back by the daemons.
. "${srcdir:-.}/tests/lib.sh"
start_pair
boot alpha g1 pc 256M "fill=text:30,rand:20,dup:5,zero:5 dirty=verify:20:4"
start_heartbeat g1

streams() { # a connection of the source's QEMU to the destination's, and nothing of it through the daemons
	[ "$(nova alpha job "$job" --json | jq '.report.path == "direct"')" = true ] &&
		ss -Htnp state established dst "$address" | grep -q 'qemu-system'
}

say "cancelled half-way: the guest goes on here, and nothing is left there"
job=$(start_migration alpha g1 --path direct --bandwidth 40M)
wait_for "the stream has begun" 30 streams
nova alpha cancel "$job" >/dev/null
expect_outcome alpha "$job" undone 30
runs_only_on g1 alpha 5
wait_for "beta has forgotten g1" 5 no_trace_of beta g1

say "there"
move_checked alpha g1 --path direct
jq -e '.path == "direct" and (.digest | startswith("none")) and .encoded_bytes == 0 and .wire_bytes > 20000000' \
	<"$tmp/report" >/dev/null || fail "not a direct migration: $(cat "$tmp/report")"

say "and back through the relay: nothing of the direct path stays with QEMU"
move_checked beta g1 --path relay
jq -e '.encoded_bytes > 0' <"$tmp/report" >/dev/null || fail "not through the relay: $(cat "$tmp/report")"

say "auto measures, and says why"
move_checked alpha g1 --path auto
jq -e '(.path_why | test("Gbit/s"))' <"$tmp/report" >/dev/null || fail "no reason: $(cat "$tmp/report")"
say "$(jq -r '.path + ": " + .path_why' <"$tmp/report")"
[ -z "$(find "$tmp"/*/run -name '*.pem')" ] || fail "a copy of a key was left"

say "postcopy and the direct path exclude each other"
job=$(start_migration beta g1 --path direct --on-stall postcopy)
expect_outcome beta "$job" undone 30
expect_error beta "$job" 'direct.*postcopy'
expect_steady_heart g1 3000
finish
