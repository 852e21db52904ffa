#!/bin/sh
# 1,000 idle control connections, a client that never reads, JSON without end, and a flood of silent connections at the
# peers' port (see tests/crowd.c): every command of a good client is answered, memory stays bounded, the bad ones are
# ended, and a guest can be made all the same.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
ASAN_OPTIONS=$ASAN_OPTIONS:quarantine_size_mb=1 # what was freed does not count
start_daemon alpha
"$NOVA_TOOLS/crowd" "$tmp/alpha/run/control.sock" "$address:$(cat "$tmp/alpha.port")" "$(cat "$tmp/alpha.pid")" 1000 300 >"$tmp/crowd" ||
	fail "the good client was not served: $(cat "$tmp/crowd")"
say "$(cat "$tmp/crowd")"
jq -e '.idle == 1000 and .refused == 0 and .answered == 300' <"$tmp/crowd" >/dev/null || fail "somebody was refused"
jq -e '.bytes_per_idle < 65536 and .grown_bytes < 268435456' <"$tmp/crowd" >/dev/null || fail "memory is not bounded"
jq -e '.ended >= 2' <"$tmp/crowd" >/dev/null || fail "JSON without end was not ended"
nova alpha create h --memory 64M >/dev/null
nova alpha delete h
start_daemon beta
finish
