#!/bin/sh
# A guest of 2 GiB that uses much of it.
. "${srcdir:-.}/tests/lib.sh"
start_pair
boot alpha big q35 2G "fill=text:300,rand:100,dup:200,zero:400 dirty=verify:40:4"
start_heartbeat big
move_checked alpha big
runs_only_on big beta 5
expect_steady_heart big 3000
jq -e '.guest_memory_bytes >= 2147483648' <"$tmp/report" >/dev/null || fail "the report says $(cat "$tmp/report")"
finish
