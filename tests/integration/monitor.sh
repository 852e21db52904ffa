#!/bin/sh
# The connection to a QEMU's monitor breaks while the guest runs: the daemon comes back to it, and what it did not hear
# meanwhile it asks for. The same in the middle of a move.
. "${srcdir:-.}/tests/integration/slow.inc"
requires socat
start_pair
boot_slow

monitor_of() { # HOST GUEST
	echo "$tmp/$1/run/guests/$2/qmp.sock"
}

break_monitor() { # HOST GUEST
	"$NOVA_TOOLS/break_socket" "$(qemu_pid "$1" "$2")" "$(monitor_of "$1" "$2")" >/dev/null || fail "$2 has no connection to its monitor"
}

# As somebody at QEMU's own monitor, while the daemon is not connected.
say_to_qemu() { # HOST GUEST COMMAND
	printf '{"execute":"qmp_capabilities"}\n{"execute":"%s"}\n' "$3" | socat -t 2 - "UNIX-CONNECT:$(monitor_of "$1" "$2")" | grep -c '"return"'
}

regained() { # HOST TIMES
	[ "$(grep -c 'its monitor answers again' "$tmp/$1.log")" -ge "$2" ]
}

say "it breaks: verbs work again"
break_monitor alpha g1
wait_for "alpha is back at the monitor" 10 regained alpha 1
nova alpha pause g1 >/dev/null
guest_is alpha g1 paused || fail "g1 is $(guest_state alpha g1)"
nova alpha resume g1 >/dev/null
runs_only_on g1 alpha 5

say "the guest is paused by somebody else while the monitor is lost: that is seen"
daemon=$(cat "$tmp/alpha.pid")
kill -STOP "$daemon"
break_monitor alpha g1
[ "$(say_to_qemu alpha g1 stop)" = 2 ] || fail "QEMU did not stop its guest"
kill -CONT "$daemon"
wait_for "alpha knows that g1 is paused" 10 guest_is alpha g1 paused
nova alpha resume g1 >/dev/null
runs_only_on g1 alpha 5

say "it breaks in the middle of a move: the guest ends up on one side, and can be moved"
begin_slow_move
break_monitor alpha g1
wait_for "the job ends" 60 job_ended alpha "$job"
outcome=$(job_field alpha "$job" .outcome)
case $outcome in
completed) runs_only_on g1 beta 5 ;;
undone)
	wait_for "the reservation on beta is gone" 10 no_trace_of beta g1
	wait_for "g1 runs" 10 guest_is alpha g1 running
	runs_only_on g1 alpha 5
	move_checked alpha g1
	;;
*) fail "the job ended $outcome: $(job_field alpha "$job" .error)" ;;
esac
finish
