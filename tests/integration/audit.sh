#!/bin/sh
# The audit log of a daemon that is killed (kill -9) at any moment while commands come in: the chain holds, at most one line
# is torn and the next one says so; a changed line, and a removed one, are found.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
start_daemon alpha
start_daemon beta

commands() { # until the daemon is gone
	while nova alpha list >/dev/null 2>&1; do
		nova alpha pause nobody >/dev/null 2>&1 || :
	done
}

lines() {
	cat "$tmp"/alpha/state/audit/audit.*.log | wc -l
}

more_lines() { # THAN
	[ "$(lines)" -gt "$1" ]
}

for round in 1 2 3; do
	before=$(lines)
	commands &
	writer=$!
	wait_for "commands are written" 20 more_lines $((before + 10))
	stop_daemon alpha KILL
	wait "$writer" || :
	start_daemon alpha
	nova alpha audit verify --json >"$tmp/verify" || fail "the chain is broken: $(cat "$tmp/verify")"
	jq -e ".ok and .torn <= $round and (.last_line_torn | not)" <"$tmp/verify" >/dev/null || fail "not as it should be: $(cat "$tmp/verify")"
	jq -e ".lines >= $before" <"$tmp/verify" >/dev/null || fail "lines are gone: $(cat "$tmp/verify")"
done

say "every command is there: what was asked, by whom, from where, how it ended and how long it took"
nova alpha pause nobody >/dev/null 2>&1 && fail "nobody was paused"
nova alpha audit show --count 5 --json | jq -e '.[] | select(.command == "pause" and .outcome == "invalid" and .who == "root" and
	(.from | startswith("unix uid 0 pid ")) and .ms >= 0 and .args.guest == "nobody")' >/dev/null ||
	fail "the refusal is not there: $(nova alpha audit show --count 5 --json)"

say "what changes the log is found"
log=$(ls "$tmp"/alpha/state/audit/audit.*.log | tail -n 1)
stop_daemon alpha
cp "$log" "$tmp/good"
expect_found() { # WHAT
	start_daemon alpha
	nova alpha audit verify >"$tmp/out" && fail "$1 was not found: $(cat "$tmp/out")"
	nova alpha doctor >"$tmp/out" && fail "the doctor finds nothing wrong with $1"
	grep -q "^error *audit" "$tmp/out" || fail "the doctor does not speak of $1: $(cat "$tmp/out")"
	stop_daemon alpha
	cp "$tmp/good" "$log"
}
sed -i '3s/"list"/"show"/; 3s/"pause"/"pausd"/' "$log"
expect_found "a changed line"
sed -i 4d "$log"
expect_found "a removed line"
start_daemon alpha
nova alpha audit verify >/dev/null || fail "the good log is not good"
finish
