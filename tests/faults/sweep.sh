#!/bin/sh
# sweep.sh: break every row of a migration in every way, and look from the outside at what is left.
#
# A pair is "KIND SIDE ROW FAULT"; KIND is the mode, or postcopy, or disks and cold-disks (live and cold with a disk that
# moves, too), or live-undo: the fault comes at the row's undo, after a refusal at its table's last row before the commit.
# Faults: see faults.inc. After each pair the daemons that died are
# started again, the link, the disk and the memory are given back. Then, within a minute, the invariant must hold: no job
# runs and none is in doubt, exactly one host has the guest, its heart beats there and nowhere else, there is one QEMU at
# most, and nothing of the guest is left on the other host. Only where the fault killed the QEMU that had the guest may
# it be stopped. A daemon that ends without being killed is a failure.
#
# pairs.inc says which pairs are run. The last line counts them.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/faults/faults.inc"
. "${srcdir:-.}/tests/faults/pairs.inc"

KINDS=${KINDS:-live warm cold postcopy live-undo disks cold-disks}
FAULTS=${FAULTS:-refused link-cut black-hole timeout own-daemon peer-daemon own-qemu peer-qemu disk-full no-memory}

# Rows by kind: all of a live migration, and those that another mode does differently.
rows_of() { # KIND
	case $1 in
	live) echo source:preflight source:estimate source:connect source:path source:reserve source:baseline source:quiesce source:precopy source:switchover source:handover \
		source:drain source:release destination:admit destination:prepare destination:offer destination:receive destination:commit \
		destination:run destination:drain destination:release ;;
	warm) echo source:quiesce source:precopy source:switchover source:handover destination:run ;;
	cold) echo source:quiesce source:handover destination:prepare destination:commit destination:run ;;
	postcopy) echo source:switchover source:handover source:drain source:release destination:commit destination:run destination:drain destination:release ;;
	disks) echo source:points source:disks source:precopy source:hold source:detach source:close source:release destination:prepare destination:seeds \
		destination:exports destination:receive destination:detach destination:close destination:load destination:run ;;
	cold-disks) echo source:open source:cold-disks source:close destination:prepare destination:exports destination:close \
		destination:run ;;
	live-undo) echo source:precopy source:quiesce source:reserve source:connect destination:receive destination:prepare \
		destination:admit ;;
	esac
}

# In postcopy the guest's memory is on both sides: who kills a QEMU there has killed the guest.
makes_sense() { # KIND ROW FAULT
	case $1:$2:$3 in
	postcopy:*:*-qemu) return 1 ;;
	live-undo:*:refused) return 1 ;;
	esac
}

# ---- a pair ----------------------------------------------------------------------------------------

# The guest of a postcopy migration writes faster than its link carries; those with a disk of their own write to that.
guest_for() { # KIND
	disk=
	case $1 in
	postcopy) wanted=rand:8:8 ;;
	*disks) wanted="none disk=vda:1:0.2" disk=own.qcow2 ;;
	*) wanted= ;;
	esac
	[ "$wanted" != "$dirty" ] || return 0
	dirty=$wanted
	remove_guest
	new_guest
}

images_on() { # HOST
	ls "$tmp/$1/disks"
}

options_of() { # KIND
	case $1 in
	live) ;;
	live-undo) echo --bandwidth 400M ;;
	warm) echo --mode warm ;;
	cold) echo --mode cold --stop-timeout 500ms ;;
	postcopy) echo --bandwidth 30M --on-stall postcopy ;;
	disks) echo "--disk-pool $tmp/$away/disks" ;;
	cold-disks) echo "--mode cold --stop-timeout 500ms --disk-pool $tmp/$away/disks" ;;
	esac
}

set_fault() { # KIND SIDE ROW FAULT
	away=$(other_host "$home")
	case $2 in source) own=$home peer=$away ;; *) own=$away peer=$home ;; esac
	case $1 in
	*-undo) echo "$2 $3 undo $4 $own $peer" >"$tmp/fault" ;;
	*) echo "$2 $3 run $4 $own $peer" >"$tmp/fault" ;;
	esac
	[ "$4" != disk-full ] || fresh_journal "$own"
}

# An undo needs a failure before it: the job is cancelled once it streams.
cancel_soon() {
	try 20 has_streamed "$home" 1 || return 0
	job=$(nova "$home" jobs --running --json | jq -r '.[0].job // empty')
	[ -z "$job" ] || nova "$home" cancel "$job" >/dev/null 2>&1 || :
}

stays_said() {
	cat "$tmp"/*.log | grep -c ': both stay' || :
}

over_or_stays() {
	! kill -0 "$mover" 2>/dev/null || [ "$(stays_said)" -gt "$stays" ]
}

# A postcopy that has lost its peer waits for it for ever, and so does its command line.
heal_postcopy() {
	try 50 over_or_stays || return 0
	! kill -0 "$mover" 2>/dev/null || revive
}

one() { # KIND SIDE ROW FAULT
	guest_for "$1"
	stays=$(stays_said)
	set_fault "$@"
	timeout 60 "$NOVACRON" --socket "$tmp/$home/run/control.sock" migrate g --to "$away" $(options_of "$1") \
		>"$tmp/last.log" 2>&1 &
	mover=$!
	case $1 in
	*-undo) cancel_soon ;;
	postcopy) heal_postcopy ;;
	esac
	status=0
	wait "$mover" || status=$?
	[ "$status" != 124 ] || fail "$*: the command line did not hear of the end within 60 s"
	note_reached
	note_deaths "$4"
	revive
	if ! try 60 settled; then
		describe >&2
		fail "$*: not settled within 60 s"
	fi
	check_home "$@"
}

check_home() { # KIND SIDE ROW FAULT
	release_paused
	state=$(guest_state "$home" g)
	if [ "$state" = running ]; then
		case $1 in cold*) start_over_console ;; esac
		lives_at_home || return 0
		no_trace_of "$(other_host "$home")" g || fail "$*: something is left on $(other_host "$home")"
		[ -z "$(images_on "$(other_host "$home")")" ] || fail "$*: images are left on $(other_host "$home"): $(images_on "$(other_host "$home")")"
		return
	fi
	case $1:$4 in
	*-qemu | *:timeout) ;;
	cold*:*) ;;
	*) fail "$*: the guest is $state on $home" ;;
	esac
	remove_guest
	new_guest
}

[ -z "${LIST:-}" ] || { chosen_pairs; exit 0; }
chosen_pairs >"$tmp/pairs"
start_faulty_pair
mkdir -p "$tmp/alpha/disks" "$tmp/beta/disks"
dirty= disk=
new_guest
pair=
run_pairs
remove_guest
stop_proxies
finish
echo "$pairs pairs of row and fault in $took_s s: the guest ran on exactly one side after each," \
	"nothing was left behind ($missed rows were not reached, ${resumed:-0} guests were let run by resume," \
	"daemons died by themselves $deaths times, $(emulators_toll))"
[ "$deaths" = 0 ] || fail "a daemon died by itself"
