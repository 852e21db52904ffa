#!/bin/sh
# The connection dies in postcopy: the guest runs at the destination, and pages that it needs are still at the source. A
# reset: it goes on. Dead for longer than the limit: both keep what they have, and go on when the link is back. A source
# whose daemon is killed: the same.
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

job=$(start_migration alpha g1 --bandwidth 30M --on-stall postcopy)
watch_job
wait_for "postcopy" 100 in_drain

say "a reset"
proxy reset
wait_for "it goes on" 10 logged alpha 'session with beta.* resumed'
in_drain || fail "it was over too soon"

say "dead for longer than the limit"
proxy refuse
wait_for "alpha says so" 20 logged alpha 'pages that it may need are here'
wait_for "beta says so" 20 logged beta 'it waits for them until alpha comes again'
wait_for "the user sees it" 5 reconnecting_for 500
proxy pass
wait_for "the rest follows" 40 logged alpha 'follows to beta again'
in_drain || fail "it was over too soon"

say "alpha's daemon is killed"
stop_daemon alpha KILL
start_daemon alpha
expect_outcome alpha "$job" completed 60
[ "$(guest_sum beta g1)" = "$sum" ] || fail "memory changed on the way"
runs_only_on g1 beta 5
finish
