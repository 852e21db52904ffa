#!/bin/sh
# The destination refuses before the first byte, and its words name the reason: capacity, machine type, CPU model, a path
# outside of its roots. The guest has noticed nothing.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
mkdir "$tmp/private"
sed -i "1i roots = $tmp/private" "$tmp/alpha.conf" "$tmp/beta.conf"
cp "$tmp/beta.conf" "$tmp/beta.conf.plain"
start_daemon alpha
start_daemon beta
boot alpha g1 q35 256M "fill=text:10" --disk "path=$tmp/private/disk.qcow2,size=16M,shared=on" --cpu qemu64
start_heartbeat g1

expect_refusal() { # WORDS [OPTION=VALUE]
	cp "$tmp/beta.conf.plain" "$tmp/beta.conf"
	stop_daemon beta
	[ -z "${2-}" ] || set_option beta "${2%%=*}" "${2#*=}"
	start_daemon beta
	status=0
	nova alpha migrate g1 --to beta >"$tmp/out" 2>&1 || status=$?
	grep -Eiq -- "$1" "$tmp/out" || fail "nothing about \"$1\": $(cat "$tmp/out")"
	[ "$status" = 4 ] || fail "exit status $status, not 4 (refused): $(cat "$tmp/out")"
	job=$(nova alpha jobs --json | jq -r 'max_by(.started_ms).job')
	[ "$(job_field alpha "$job" '.report.raw_bytes // 0')" = 0 ] || fail "bytes of the guest went before the refusal"
	no_trace_of beta g1 || fail "something is left on beta"
	say "refused: $(head -n 1 "$tmp/out")"
}

expect_refusal 'no capacity.*memory' max-memory=128M
expect_refusal 'machine' machines=pc
expect_refusal 'cpu' cpu-models=max
sed -i "/^roots = .*private$/d" "$tmp/beta.conf.plain"
expect_refusal 'private/disk.qcow2|roots'
nova alpha adopt g2 --qmp "$tmp/nothing.sock" >"$tmp/out" 2>&1 && fail "a QEMU that is not there was adopted"
grep -q "nothing.sock: connection failed" "$tmp/out" && ! grep -q "novacrond running" "$tmp/out" ||
	fail "the daemon answered, but its absence is named: $(cat "$tmp/out")"
guest_is alpha g1 running || fail "g1 is not running on alpha"
expect_steady_heart g1 1000
finish
