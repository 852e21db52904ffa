#!/bin/sh
# ^C of the command line: it ends, says how to look again, and the job goes on; watch shows its end.
. "${srcdir:-.}/tests/integration/slow.inc"
start_pair
boot_slow
"$NOVACRON" --socket "$tmp/alpha/run/control.sock" migrate g1 --to beta --bandwidth 80M >"$tmp/cli.out" 2>"$tmp/cli.err" &
cli=$!
wait_for "pages flow" 30 has_streamed alpha 8
kill -INT "$cli"
status=0
wait "$cli" || status=$?
[ "$status" = 130 ] || fail "the command line ended with $status, not 130: $(cat "$tmp/cli.err")"
job=$(nova alpha jobs --running --json | jq -r '.[0].job')
grep -q "novacron watch $job" "$tmp/cli.err" || fail "it does not say how to go on: $(cat "$tmp/cli.err")"
nova alpha watch "$job" >"$tmp/watch.out" 2>"$tmp/watch.err" || fail "watch ended with $?: $(cat "$tmp/watch.err")"
grep -qi completed "$tmp/watch.out" || fail "watch says: $(cat "$tmp/watch.out")"
runs_only_on g1 beta 5
finish
