#!/bin/sh
# Plain QEMUs joined by `novacron relay`: broken off by ^C (the guest goes on where it is), moved with the connection cut
# three times meanwhile, and moved on with multifd, whose connections become channels.
. "${srcdir:-.}/tests/integration/relay.inc"
prepare_relays

watch_beats() {
	"$NOVA_TOOLS/heartbeat" "$tmp/beats" "$tmp/alpha/serial1.sock" "$tmp/beta/serial1.sock" >"$tmp/beats.json" &
	echo $! | tee -a "$tmp/helpers" >"$tmp/beats.pid"
}

beats() { # INDEX COUNT
	[ "$(grep -c " $1\$" "$tmp/beats")" -gt "$2" ]
}

# Watch the console too: an unread serial port would stop nothing, but what a dying guest says should be in the log.
qemu alpha
"$NOVA_TOOLS/console" "$tmp/console.log" "$tmp/console.fifo" "$tmp/alpha/serial0.sock" "$tmp/beta/serial0.sock" &
echo $! >>"$tmp/helpers"
watch_beats
wait_for "the guest is ready" 60 grep -q WL-READY "$tmp/console.log"

say "broken off: the guest goes on at alpha"
qemu beta -incoming "unix:$tmp/beta/in.sock"
start_relays "$tmp/alpha/out.sock" "$tmp/beta/in.sock" --bandwidth 50M
capabilities alpha return-path
qmp alpha migrate-set-parameters '{"max-bandwidth": 0}' >/dev/null
qmp alpha migrate "{\"uri\": \"unix:$tmp/alpha/out.sock\"}" >/dev/null
wait_for "pages flow" 30 relay_has_moved 8
kill -INT "$(cat "$tmp/relay-alpha.pid")"
expect_relays_end 130 5
relay_report beta .error.text | grep -q 'the relay at alpha: interrupted' || fail "beta's relay does not say why it ended"
wait_for "the migration has failed" 10 migration_is alpha failed
wait_for "beta's QEMU is gone" 10 gone "$(cat "$tmp/beta/qemu.pid")"
wait_for "the guest runs on alpha" 10 beats 0 $(($(grep -c ' 0$' "$tmp/beats") + 20))
end_qemu beta

say "moved, with three cuts"
qemu beta -incoming "unix:$tmp/beta/in.sock"
start_relays "$tmp/alpha/out.sock" "$tmp/beta/in.sock" --bandwidth 100M --codec lz4
proxy "every 8000000 reset 3"
qmp alpha migrate "{\"uri\": \"unix:$tmp/alpha/out.sock\"}" >/dev/null
wait_for "the migration is complete" 60 migration_is alpha completed
expect_relays_end 0 0
[ "$(relay_report alpha .reconnects)" = 3 ] || fail "the link was lost $(relay_report alpha .reconnects) times, not 3"
wait_for "the guest runs on beta" 10 beats 1 20
end_qemu alpha

say "moved on with multifd"
qemu alpha -incoming defer
for host in alpha beta; do
	capabilities "$host" return-path multifd
	qmp "$host" migrate-set-parameters '{"max-bandwidth": 0, "multifd-channels": 2}' >/dev/null
done
qmp alpha migrate-incoming "{\"uri\": \"unix:$tmp/alpha/in.sock\"}" >/dev/null
start_relays "$tmp/beta/out.sock" "$tmp/alpha/in.sock" --bandwidth 200M --lanes 2
qmp beta migrate "{\"uri\": \"unix:$tmp/beta/out.sock\"}" >/dev/null
wait_for "the migration is complete" 60 migration_is beta completed
expect_relays_end 0 0
[ "$(relay_report alpha .connections)" = 3 ] || fail "$(relay_report alpha .connections) connections, not 3"
wait_for "the guest runs on alpha" 10 beats 0 $(($(grep -c ' 0$' "$tmp/beats") + 20))

kill "$(cat "$tmp/beats.pid")"
wait "$(cat "$tmp/beats.pid")" || :
say "heartbeat: $(cat "$tmp/beats.json")"
jq -e '.missing == 0 and .duplicated == 0 and .max_gap_ms < 3000' <"$tmp/beats.json" >/dev/null || fail "beats were lost"
end_relay_test
