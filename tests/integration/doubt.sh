#!/bin/sh
# The link is cut after the commit was sent: the guest is in doubt and paused at the source. resolve shows what is known
# and decides nothing; a fence that fails leaves everything as it is; a fence that holds (here it kills the QEMU over
# there) lets the guest run at the source, and nowhere else. A second time the link comes back and nobody has to decide.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
start_proxy
set_option alpha fence-hook "$tmp/fence"
set_option beta fault-hook "$tmp/cut"

# beta has heard the commit and is about to write its decision; $tmp/armed says that this time it matters.
cat >"$tmp/cut" <<END
#!/bin/sh
[ "\$3 \$4 \$5" = "destination commit run" ] && rm "$tmp/armed" 2>/dev/null || exit 0
echo refuse >"$tmp/proxy.fifo"
tries=0
while ss -Htn state established sport = ":$(cat "$tmp/proxy.port")" | grep -q . && [ \$tries -lt 500 ]; do tries=\$((tries + 1)); done
END
cat >"$tmp/fence" <<END
#!/bin/sh
echo "\$@" >>"$tmp/fence.calls"
[ -f "$tmp/fence-fails" ] && { echo "the power switch does not answer" >&2; exit 3; }
for file in /proc/[0-9]*/cmdline; do
	tr '\0' ' ' 2>/dev/null <"\$file" | grep -q "^[^ ]*qemu-system.*$tmp/beta/run/guests/\$1/" || continue
	pid=\${file#/proc/}
	kill -9 "\${pid%/cmdline}"
done
exit 0
END
chmod +x "$tmp/cut" "$tmp/fence"
start_daemon alpha
start_daemon beta
boot alpha g1 pc 128M "fill=text:10,rand:10 dirty=verify:4:1"
start_heartbeat g1

cut_after_commit() { # sets job
	touch "$tmp/armed"
	job=$(start_migration alpha g1)
	wait_for "g1 is in doubt on alpha" 40 guest_is alpha g1 in-doubt
	[ ! -f "$tmp/armed" ] || fail "the link was not cut"
	runs_only_on g1 beta 5
}

say "cut after the commit was sent"
cut_after_commit
nova alpha resolve "$job" --keep source >"$tmp/out" && fail "resolve without --yes says that all is well"
for words in "beta has committed" "makes two of it" "fence" "commit.sent" "peer.last.heard" "$job --keep source --yes"; do
	tr '\n' ' ' <"$tmp/out" | tr -s ' ' | grep -Eqi -- "$words" || fail "resolve says nothing about \"$words\": $(cat "$tmp/out")"
done
nova alpha resolve "$job" --keep destination >"$tmp/out" || :
grep -q "loses" "$tmp/out" || fail "no word about the risk: $(cat "$tmp/out")"
[ ! -f "$tmp/fence.calls" ] || fail "the fence-hook was called without a decision"
nova alpha cancel "$job" >/dev/null 2>&1 && fail "a job in doubt was cancelled"

say "the fence fails: nothing is decided"
touch "$tmp/fence-fails"
nova alpha resolve "$job" --keep source --yes >"$tmp/out" 2>&1 && fail "resolved although the fence failed"
grep -q "stays in doubt.*the power switch does not answer" "$tmp/out" || fail "not the reason: $(cat "$tmp/out")"
[ "$(cat "$tmp/fence.calls")" = "g1 $job beta source" ] || fail "the fence-hook got: $(cat "$tmp/fence.calls")"
guest_is alpha g1 in-doubt || fail "g1 is $(guest_state alpha g1) on alpha"

say "the fence holds: the source has it, alone"
rm "$tmp/fence-fails"
nova alpha resolve "$job" --keep source --yes >/dev/null || fail "not resolved"
expect_outcome alpha "$job" undone 20
runs_only_on g1 alpha 10
[ -z "$(qemu_pid beta g1)" ] || fail "the fence left g1's QEMU on beta"
nova alpha audit show --json | jq -e '.[] | select(.decision == "resolve" and .keep == "source" and .guest == "g1")' >/dev/null ||
	fail "the decision is not in the audit log"

outcome_is() { # JOB OUTCOME; a job in doubt does not run either
	[ "$(job_field alpha "$1" .outcome)" = "$2" ]
}

say "the link comes back: the doubt ends by itself"
proxy pass
wait_for "beta can forget g1" 10 nova beta delete g1 --force
cut_after_commit
proxy pass
wait_for "the doubt ends by itself" 30 outcome_is "$job" completed
runs_only_on g1 beta 5
wait_for "alpha has let go of g1" 5 no_trace_of alpha g1
finish
