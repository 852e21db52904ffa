#!/bin/sh
# local.sh: break every row of the local operations (create, start, pause, resume, resize, snapshot, stop, delete) in every
# way. A pair is "OPERATION ROW FAULT" (see faults.inc). After each, the daemon is there again and the invariant holds: no
# job runs, what the host says of the guest is what its processes and files show, and it can be deleted without a trace.
#
# The guest is a bare machine without a system: firmware is enough here. OPERATIONS and FAULTS narrow it down. The last
# line counts the pairs.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/faults/faults.inc"

OPERATIONS=${OPERATIONS:-create start pause resume resize snapshot stop delete}
FAULTS=${FAULTS:-refused own-daemon own-qemu timeout disk-full no-memory}

rows_of() { # OPERATION
	case $1 in
	create) echo check admit create created ;;
	delete) echo stop delete ;;
	*) echo act ;;
	esac
}

# What there is before the operation.
prepare() { # OPERATION
	[ "$1" = create ] && return
	create
	case $1 in
	start) ;;
	*) nova alpha start g >/dev/null ;;
	esac
	[ "$1" != resume ] || nova alpha pause g >/dev/null
}

create() {
	nova alpha create g --memory 64M --max-memory 192M --disk "path=$tmp/alpha/g.qcow2,format=qcow2,size=8M" >/dev/null
}

act() { # OPERATION
	case $1 in
	create) create ;;
	delete) nova alpha delete g --force ;;
	stop) nova alpha stop g --force ;;
	snapshot) nova alpha snapshot g s1 ;;
	resize) nova alpha resize g --memory 192M ;;
	*) nova alpha "$1" g ;;
	esac
}

files_of_guest() {
	find "$tmp"/alpha/run/guests "$tmp"/alpha/state/guests "$tmp"/alpha/g.qcow2* -mindepth 0 2>/dev/null | grep -E 'guests/g|g.qcow2' || :
}

# What the host says is what is there.
consistent() {
	[ "$(nova alpha jobs --running --json | jq length)" = 0 ] || return 1
	case $(guest_state alpha g) in
	running | paused) [ "$(qemu_pid alpha g | wc -l)" = 1 ] ;;
	stopped | failed) [ -z "$(qemu_pid alpha g)" ] && [ -e "$tmp/alpha/g.qcow2" ] ;;
	'') [ -z "$(qemu_pid alpha g)$(files_of_guest)" ] ;;
	*) return 1 ;;
	esac
}

one() { # OPERATION ROW FAULT
	[ "$3" != disk-full ] || fresh_journal alpha
	prepare "$1"
	echo "local $2 run $3 alpha beta" >"$tmp/fault"
	(act "$1") >"$tmp/last.log" 2>&1 || :
	[ ! -f "$tmp/fault" ] || fail "$*: the row was not reached: $(cat "$tmp/last.log")"
	rm -f "$tmp/fault.done"
	case $3 in own-daemon) ;; *) kill -0 "$(cat "$tmp/alpha.pid")" 2>/dev/null || { say "  the daemon died by itself"; deaths=$((deaths + 1)); } ;; esac
	revive
	if ! try 30 consistent; then
		say "alpha says: guest $(guest_state alpha g), jobs $(nova alpha jobs --running --json | jq -c .); QEMU: $(qemu_pid alpha g); files: $(files_of_guest)"
		say "the operation said: $(cat "$tmp/last.log")"
		fail "$*: what alpha says is not what is there"
	fi
	[ -z "$(guest_state alpha g)" ] || nova alpha delete g --force >/dev/null || fail "$*: it cannot be deleted"
	[ -z "$(qemu_pid alpha g)$(files_of_guest)" ] || fail "$*: left after delete: $(files_of_guest)"
}

start_faulty_pair
pairs=0 deaths=0
begun=$(now_ms)
for operation in $OPERATIONS; do
	for row in $(rows_of "$operation"); do
		for fault in $FAULTS; do
			case $operation:$fault in create:own-qemu | create:timeout | start:own-qemu | start:timeout) continue ;; esac
			say "$operation $row $fault"
			one "$operation" "$row" "$fault"
			pairs=$((pairs + 1))
		done
	done
done
stop_proxies
finish
echo "$pairs pairs of row and fault of local operations in $((($(now_ms) - begun) / 1000)) s: nothing was left behind" \
	"(daemons died by themselves $deaths times)"
[ "$deaths" = 0 ] || fail "a daemon died by itself"
