#!/bin/sh
# soak.sh: a guest goes back and forth until it has been switched over SWITCHOVERS times (300), by SEED; most moves are
# disturbed: a fault (see faults.inc) at a row drawn at random, or (MOMENTS=1: always) kill -9 of one of the daemons, or
# both, at a moment of its own. No QEMU with the guest in it is killed, so the guest must never be lost.
#
# The guest's heartbeat is written down on both hosts: a beat twice would be a double run. After each move the invariant of
# the sweep holds, and at the end no beat came twice. MOVES (no limit) bounds the moves. The last line has the counts.
# MODE=warm stops the guest for its stream: under TCG live moves crash its kernel now and then (see tests/retry).
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/faults/faults.inc"

SWITCHOVERS=${SWITCHOVERS:-300}
SEED=${SEED:-1}
MOMENTS=${MOMENTS:-}
MODE=${MODE:-live}
MOVES=${MOVES:-1000000}
SECONDS_MOST=${SECONDS_MOST:-1000000}

# A plan: lines of SIDE ROW FAULT, or "none", or "moment WHO MS".
plan() {
	awk -v seed="$SEED" -v moments="$MOMENTS" '
		function pick(list, part, n) { n = split(list, part, " "); return part[1 + int(rand() * n)] }
		BEGIN {
			srand(seed)
			source = "preflight connect reserve quiesce precopy switchover handover drain release"
			destination = "admit prepare receive commit run drain"
			faults = "refused link-cut black-hole own-daemon peer-daemon disk-full no-memory"
			for (i = 0; i < 5000; i++) {
				x = rand()
				if (moments || x < 0.25)
					print "moment", pick("alpha beta both"), int(rand() * (moments ? 1500 : 2500))
				else if (x < 0.4)
					print "none"
				else if (x < 0.45)
					print "source precopy peer-qemu"
				else if (x < 0.72)
					print "source", pick(source), pick(faults)
				else
					print "destination", pick(destination), pick(faults)
			}
		}'
}

kill_at_moment() { # WHO MS
	sleep "$(($2 / 1000)).$(printf %03d $(($2 % 1000)))"
	case $1 in both) who="alpha beta" ;; *) who=$1 ;; esac
	for host in $who; do
		kill -9 "$(cat "$tmp/$host.pid")" 2>/dev/null || :
	done
}

move_once() { # a line of the plan
	away=$(other_host "$home")
	case $1 in
	source) [ "$3" != disk-full ] || fresh_journal "$home"; echo "source $2 run $3 $home $away" >"$tmp/fault" ;;
	destination) [ "$3" != disk-full ] || fresh_journal "$away"; echo "destination $2 run $3 $away $home" >"$tmp/fault" ;;
	esac
	timeout 60 "$NOVACRON" --socket "$tmp/$home/run/control.sock" migrate g --to "$away" --mode "$MODE" >"$tmp/last.log" 2>&1 &
	mover=$!
	[ "$1" != moment ] || kill_at_moment "$2" "$3"
	wait "$mover" || :
	rm -f "$tmp/fault" "$tmp/fault.done"
	case $1 in moment) ;; *) note_deaths "${3:-none}" ;; esac
	revive
}

account() { # a line of the plan
	was=$home
	unharmed "move $moves ($*)"
	if [ "$at" != "$was" ]; then switched=$((switched + 1)); else stayed=$((stayed + 1)); fi
	[ "$1" = none ] || disturbed=$((disturbed + 1))
}

start_faulty_pair
dirty=verify:4:1
new_guest
moves=0 switched=0 stayed=0 disturbed=0 deaths=0
begun=$(now_ms)
plan >"$tmp/plan"
while [ "$switched" -lt "$SWITCHOVERS" ] && [ "$moves" -lt "$MOVES" ] && [ "$(now_ms)" -lt $((begun + SECONDS_MOST * 1000)) ] &&
	read -r line <&4; do
	moves=$((moves + 1))
	say "$moves: $line (guest on $home, $switched switch-overs)"
	move_once $line 4<&-
	account $line
done 4<"$tmp/plan"
case $(guest_sum "$home" g) in *" bad=0") ;; *) fail "the guest found wrong pages" ;; esac
check_beats
heartbeat_report g >"$tmp/beats"
stop_proxies
finish
echo "seed $SEED, $MODE: $moves moves, $disturbed of them disturbed, in $((($(now_ms) - begun) / 1000)) s: $switched switch-overs," \
	"$stayed times back at the source; 0 double runs, 0 guests lost, daemons died by themselves $deaths times," \
	"$(emulators_toll);" \
	"heartbeat $(jq -c '{beats, missing, duplicated, max_gap_ms, per_socket}' <"$tmp/beats")"
[ "$deaths" = 0 ] || fail "a daemon died by itself"
