#!/bin/sh
# moments.sh: kill -9 of a daemon at a random moment of a migration of a guest that runs: KILLS (50) times the source's,
# and as often the destination's, by SEED. The moment is a share of what an undisturbed move takes, up to a fifth beyond
# its end; of every two one lies in the last fifth or beyond, where the guest changes hands. Then the daemon is started again, and what both journals say must come true: the guest runs on exactly one
# host, its heart beats there and never beat twice, nothing is left on the other.
#
# The last lines count: by daemon, the row at which its journal found it dead, and how the source's job ended.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/faults/faults.inc"

KILLS=${KILLS:-50}
SEED=${SEED:-1}
MODE=${MODE:-live}

plan() { # lines of SIDE SHARE
	awk -v seed="$SEED" -v kills="$KILLS" 'BEGIN {
		srand(seed)
		for (i = 0; i < kills; i++)
			for (side = 0; side < 2; side++)
				print side ? "destination" : "source", i % 2 ? rand() * 0.8 : 0.8 + rand() * 0.4
	}'
}

begin_move() {
	away=$(other_host "$home")
	timeout 60 "$NOVACRON" --socket "$tmp/$home/run/control.sock" migrate g --to "$away" --mode "$MODE" >"$tmp/last.log" 2>&1 &
	mover=$!
}

# Sets move_ms.
undisturbed() {
	move_begun=$(now_ms)
	begin_move
	wait "$mover" || fail "an undisturbed move: $(cat "$tmp/last.log")"
	move_ms=$(($(now_ms) - move_begun))
	unharmed "an undisturbed move"
}

# The row of the job that a dead daemon leaves open; none: there is no such job.
row_of_the_dead() { # HOST
	sqlite3 "$tmp/$1/state/novacron.db" "select case when undoing then 'undo of ' else '' end || step from jobs where ended_ms = 0 and
		kind = 'migrate'" 2>/dev/null | tail -n 1 | sed 's/^$/begin/'
}

last_job() { # HOST
	nova "$1" jobs --json | jq -r '[.[] | select(.kind == "migrate")][-1].job // "none"'
}

kill_in_move() { # SIDE SHARE
	source=$home
	earlier=$(last_job "$source")
	begin_move
	case $1 in source) dead=$home ;; *) dead=$away ;; esac
	sleep "$(awk -v share="$2" -v ms="$move_ms" 'BEGIN { printf "%.3f", share * ms / 1000 }')"
	kill -9 "$(cat "$tmp/$dead.pid")"
	wait "$(cat "$tmp/$dead.pid")" 2>/dev/null || :
	row=$(row_of_the_dead "$dead")
	wait "$mover" || :
	revive
	unharmed "kill $kills ($*, at ${row:-no job})"
	ended=$(last_job "$source")
	case $ended in
	"$earlier") outcome="no job" ;;
	*) outcome=$(nova "$source" jobs --json | jq -r --arg job "$ended" '.[] | select(.job == $job) | .outcome') ;;
	esac
	[ "$row:$outcome" != :completed ] || move_ms=$((move_ms * 9 / 10)) # too late: the next come earlier
	where=$([ "$at" = "$source" ] && echo source || echo destination)
	echo "$1 killed at ${row:-no job}: $outcome, the guest runs at the $where" | tee -a "$tmp/outcomes" >&2
}

plan >"$tmp/plan"
start_faulty_pair
dirty=verify:4:1
new_guest
kills=0
begun=$(now_ms)
undisturbed
undisturbed # by now it knows the way
while read -r side share <&4; do
	kills=$((kills + 1))
	kill_in_move "$side" "$share" 4<&-
done 4<"$tmp/plan"
case $(guest_sum "$home" g) in *" bad=0") ;; *) fail "the guest found wrong pages" ;; esac
check_beats
stop_proxies
finish
sort "$tmp/outcomes" | uniq -c
echo "seed $SEED, $MODE: $kills kills of daemons in migrations, in $((($(now_ms) - begun) / 1000)) s:" \
	"0 double runs, 0 guests lost, ${resumed:-0} let run by resume; $(emulators_toll)"
