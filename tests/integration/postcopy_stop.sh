#!/bin/sh
# In postcopy the link dies and stays dead: the guest waits at the destination for memory that does not come. It is ended there, which
# nothing else may be done to it; the source hears of it when the link is back, and lets go; the guest starts again.
. "${srcdir:-.}/tests/integration/resume.inc"
prepare_pair
start_proxy
set_option alpha resume-limit 2s
set_option beta resume-limit 2s
start_daemon alpha
start_daemon beta
boot_watched 256M "fill=text:10,rand:70 dirty=rand:24:12"

in_drain() {
	[ "$(job_field alpha "$job" .step)" = drain ]
}

logged() { # HOST WORDS
	grep -q -- "$2" "$tmp/$1.log"
}

no_jobs() { # HOST
	[ "$(nova "$1" jobs --running --json | jq length)" = 0 ]
}

job=$(start_migration alpha g1 --bandwidth 30M --on-stall postcopy)
wait_for "postcopy" 100 in_drain
proxy refuse
wait_for "beta waits for the rest" 20 logged beta 'it waits for them until alpha comes again'
nova beta pause g1 >/dev/null 2>"$tmp/refused" && fail "a guest that waits for its rest was paused"
grep -q 'is busy: migrate' "$tmp/refused" || fail "it was not said why: $(cat "$tmp/refused")"
in_drain || fail "the migration is not in drain any more"

nova beta stop g1 --force >/dev/null
guest_is beta g1 stopped || fail "g1 is $(guest_state beta g1) on beta"
wait_for "beta's half is over" 10 no_jobs beta
[ "$(guest_state alpha g1)" != running ] || fail "g1 runs on alpha"
proxy pass
expect_outcome alpha "$job" leftovers 60
expect_error alpha "$job" 'ended on beta: the rest of it is of no use'
no_trace_of alpha g1 || fail "something is left on alpha"
nova beta start g1 >/dev/null
guest_sum beta g1 >/dev/null
finish
