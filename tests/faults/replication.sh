#!/bin/sh
# replication.sh: break every row of a replica's points, at the guest's host and at the standby, and of a fail-over, planned
# and not, in every way, and look from the outside at what is left.
#
# A pair is "KIND SIDE ROW FAULT". KINDs: point (a delta), base (a whole image), planned and unplanned (a fail-over);
# ...-undo: the fault comes at the row's undo, after a refusal further down the table. Faults: see faults.inc. alpha has
# the guest g, beta is the standby. After each pair, everything that the fault took is given back. Then,
#
#	of a point     two more points must come within a minute; the newest holds what the disks of the paused guest hold;
#	               no file, socket or server of another one is left on either host; the guest's heart beats at home
#	of a fail-over the guest runs on beta and nowhere else, on all that it wrote before a planned one; or it does not run
#	               there, and a second fail-over, unplanned, behind a fence that kills the QEMU over there, brings it
#
# A daemon that ends without being killed is a failure. pairs.inc says which pairs are run. The last line counts them.
. "${srcdir:-.}/tests/lib.sh"
FAULT_LIMIT=${FAULT_LIMIT:-8s} HANG_S=${HANG_S:-10}
. "${srcdir:-.}/tests/faults/faults.inc"
. "${srcdir:-.}/tests/faults/pairs.inc"

KINDS=${KINDS:-point base point-undo planned unplanned unplanned-undo}
FAULTS=${FAULTS:-refused link-cut black-hole timeout own-daemon peer-daemon own-qemu peer-qemu disk-full no-memory}

rows_of() { # KIND
	case $1 in
	point) echo source:disks source:clear source:connect source:open source:settle source:begin source:ways source:take source:copy \
		source:commit source:finish standby:thin standby:make standby:serve standby:receive standby:record ;;
	base) echo source:disks source:take source:copy source:commit standby:make standby:serve standby:receive standby:record ;;
	point-undo) echo source:copy source:take source:ways source:connect standby:serve standby:make ;;
	planned) echo local:handover local:let-go local:rest local:hold local:images local:check local:admit local:create local:start \
		local:tell ;;
	unplanned) echo local:fence local:rest local:hold local:images local:check local:admit local:create local:start local:tell ;;
	unplanned-undo) echo local:start local:create local:admit local:images local:hold ;;
	esac
}

# The standby has no QEMU until a fail-over has started it; what fails over alone does not ask anybody.
makes_sense() { # KIND SIDE:ROW FAULT
	case $1:$2:$3 in
	*-undo:*:refused) return 1 ;;
	*:standby:*:own-qemu) return 1 ;;
	*planned*:local:start:own-qemu | *planned*:local:tell:own-qemu) ;;
	*planned*:*:own-qemu) return 1 ;;
	unplanned*:link-cut | unplanned*:black-hole | unplanned*:timeout | unplanned*:peer-*) return 1 ;;
	esac
}

# ---- the guest and its replica ---------------------------------------------------------------------

images() { # HOST
	find "$tmp/$1" -path '*.replica-*' -name '*.qcow2' | sort
}

servers() {
	for pid in $(own_pids); do
		case $(readlink "/proc/$pid/exe") in *qemu-nbd | *qemu-storage-daemon | *qemu-img) echo "$pid" ;; esac
	done
}

shown() { # HOST JQ-PATH
	nova "$1" replicate show g --json | jq -r "$2"
}

more_points() { # COUNT
	[ "$(shown alpha '.points // 0')" -ge "$1" ]
}

# The guest, stopped and started, with two disks that it writes; points of them.
replicated_guest() {
	! is_there g || return 0
	mkdir -p "$tmp/alpha/disks"
	rm -f "$tmp"/beats-g* "$tmp"/console-g*
	boot alpha g pc 128M "fill=text:1 dirty=none disk=vda:1:0.1,vdb:1:0.1" \
		--disk "path=$tmp/alpha/disks/system.qcow2,size=8M" --disk "path=$tmp/alpha/disks/data.raw,size=8M,format=raw"
	start_heartbeat g
	home=alpha
	replicate
	wait_for "a first point" 60 more_points 1
}

replicate() {
	nova alpha replicate create g --to beta --every 1s --keep 2 >/dev/null
}

is_there() { # GUEST
	[ -n "$(guest_state alpha "$1")" ]
}

end_replica() {
	for host in alpha beta; do
		nova "$host" replicate delete g >/dev/null 2>&1 || :
	done
}

remove_all() {
	for host in alpha beta; do
		[ -z "$(guest_state $host g)" ] || nova "$host" delete g --force >/dev/null || fail "$pair: g cannot be deleted on $host"
	done
	end_replica
	for pid in $(cat "$tmp/helpers" 2>/dev/null); do
		kill "$pid" 2>/dev/null || :
	done
	rm -f "$tmp/helpers"
	try 10 nothing_left || fail "$pair: left when all was deleted: $(images alpha) $(images beta) $(servers) $(ls "$tmp/alpha/disks") $(qemu_pid alpha g) $(qemu_pid beta g)"
}

nothing_left() {
	[ -z "$(images alpha)$(images beta)$(servers)$(ls "$tmp/alpha/disks")$(qemu_pid alpha g)$(qemu_pid beta g)" ]
}

# ---- points ----------------------------------------------------------------------------------------

newest_since() { # MS
	[ "$(shown alpha '.last.taken_ms // 0')" -gt "$1" ]
}

# What there is of points, and of a merge that goes on with the next one, and nothing beside them.
tidy() {
	[ -z "$(servers)" ] && [ -z "$(find "$tmp/alpha/disks" -name '*.nova-point')" ] &&
		[ -z "$(find "$tmp"/*/run -name 'replica-*')" ] && [ -z "$(find "$tmp/alpha/run/guests" -name 'disk*.sock')" ] &&
		[ "$(images beta)" = "$(shown beta '.points[].files[], (.merging.into // [])[]' | sort)" ]
}

check_point() {
	nova alpha pause g >/dev/null
	since=$(date +%s%3N)
	try 60 newest_since "$since" || fail "$pair: no point of the paused guest: $(shown alpha .error)"
	nova alpha replicate pause g >/dev/null
	try 10 tidy || fail "$pair: left: $(servers) $(find "$tmp/alpha/disks" "$tmp"/*/run "$tmp/beta" -name '*.nova-point' -o -name '*.sock' -o -name '*.qcow2'), points $(shown beta '.points | tostring')"
	shown beta '.points[-1].files[]' >"$tmp/files"
	qemu-img compare -q -U -f qcow2 -F qcow2 "$tmp/alpha/disks/system.qcow2" "$(sed -n 1p "$tmp/files")" || fail "$pair: disk0 of the newest point differs"
	qemu-img compare -q -U -f raw -F qcow2 "$tmp/alpha/disks/data.raw" "$(sed -n 2p "$tmp/files")" || fail "$pair: disk1 of the newest point differs"
	nova alpha replicate resume g >/dev/null
	nova alpha resume g >/dev/null
}

# The fault takes the guest of one that has none any more.
lost_its_qemu() { # SIDE FAULT
	case $1:$2 in source:own-qemu | standby:peer-qemu | local:peer-qemu) ;; *) return 1 ;; esac
}

one_point() { # KIND SIDE ROW FAULT
	case $1 in base) end_replica; replicate ;; esac
	fault_is_over() { [ -f "$tmp/fault.done" ]; }
	try 20 fault_is_over || :
	case $4 in link-cut | black-hole | timeout) try 8 has_failed || : ;; esac
	note_reached
	note_deaths "$4"
	revive
	if lost_its_qemu "$2" "$4"; then
		wait_for "g has failed" 20 not_running alpha g
		nova alpha start g >/dev/null
		start_over_console
	fi
	count=$(shown alpha '.points // 0')
	try 60 more_points $((count + 2)) || fail "$pair: no more points: $(shown alpha '.error, .failures')"
	check_point
	lives_at_home || :
}

has_failed() {
	[ "$(shown alpha '.failures // 0')" -gt "$failures" ]
}

# ---- fail-overs ------------------------------------------------------------------------------------

write_fence() {
	cat >"$tmp/fence" <<-END
	#!/bin/sh
	echo "$tmp/alpha/run/guests/g/" | grep -laF -f - /proc/[0-9]*/cmdline | while IFS=/ read -r _ _ pid _; do
		case \$(readlink "/proc/\$pid/exe") in */qemu-system-*) kill -9 "\$pid" ;; esac
	done
	END
	chmod +x "$tmp/fence"
}

fail_over() { # OPTION...
	timeout 100 "$NOVACRON" --socket "$tmp/beta/run/control.sock" failover g "$@" >"$tmp/last.log" 2>&1
}

runs_on_beta() {
	[ "$(guest_state beta g)" = running ] && [ -n "$(qemu_pid beta g)" ] && [ -z "$(qemu_pid alpha g)" ]
}

one_failover() { # KIND SIDE ROW FAULT
	options=
	case $1 in planned*)
		options="--planned --stop-timeout 500ms"
		guest_console alpha g "sh echo marker-of-g | dd of=/dev/vdb bs=512 seek=16000 conv=sync,fsync 2>/dev/null && echo WL-MARK\$((1))" "WL-MARK1" 30 >/dev/null ;;
	esac
	status=0
	fail_over $options || status=$?
	[ "$status" != 124 ] || fail "$pair: the command line did not hear of the end within 100 s"
	note_reached
	note_deaths "$4"
	revive
	try 60 jobs_idle || fail "$pair: jobs do not end: $(nova beta jobs --running --json)"
	case $1:$4 in *-undo:disk-full) # what could not be written down is by now, or is at the daemon's end
		stop_daemon beta
		faulty_daemon beta ;;
	esac
	handed_over=$(shown alpha .state)
	if ! try 3 runs_on_beta; then
		say "  once more: $(guest_state alpha g) on alpha, ${handed_over}; $(guest_state beta g) on beta; it was said: $(tail -n 1 "$tmp/last.log")"
		again=$((again + 1))
		[ "$(guest_state beta g)" != paused ] || nova beta resume g >/dev/null
		case $(guest_state beta g) in
		running) ;;
		failed | stopped) nova beta start g >/dev/null ;;
		*) fail_over || fail "$pair: it cannot be failed over again: $(cat "$tmp/last.log")" ;;
		esac
	fi
	try 20 runs_on_beta || fail "$pair: g is $(guest_state alpha g) on alpha (QEMU $(qemu_pid alpha g)), $(guest_state beta g) on beta (QEMU $(qemu_pid beta g))"
	home=beta
	if lives_there && [ "$handed_over" = handed-over ]; then
		guest_console beta g "sh dd if=/dev/vdb bs=512 skip=16000 count=1 2>/dev/null | tr -d '\\\\000'" marker-of-g 30 >/dev/null
	fi
	remove_all
}

# It booted there; a guest whose kernel crashes under the emulator is no failure of ours.
lives_there() {
	try 30 more_beats g beta 5 || ! grep -Eq "$crash_pattern" "$tmp/console-g.log" || { crashes=$((${crashes:-0} + 1)); return 1; }
	runs_only_on g beta 30
}

# ---- a pair ----------------------------------------------------------------------------------------

set_fault() { # KIND SIDE ROW FAULT
	case $2 in source) own=alpha peer=beta ;; *) own=beta peer=alpha ;; esac
	case $1 in *-undo) when=undo ;; *) when=run ;; esac
	[ "$4" != disk-full ] || fresh_journal "$own"
	case $1:$2 in
	point-undo:source) echo "source $3 $when $4 $own $peer" >"$tmp/fault.next"; echo "source commit run refused alpha beta" >"$tmp/fault" ;;
	point-undo:standby) echo "standby $3 $when $4 $own $peer" >"$tmp/fault.next"; echo "standby record run refused alpha beta" >"$tmp/fault" ;;
	unplanned-undo:*) echo "local $3 $when $4 $own $peer" >"$tmp/fault.next"; echo "local tell run refused alpha beta" >"$tmp/fault" ;;
	*) echo "$2 $3 $when $4 $own $peer" >"$tmp/fault" ;;
	esac
}

one() { # KIND SIDE ROW FAULT
	replicated_guest
	failures=$(shown alpha '.failures // 0')
	set_fault "$@"
	case $1 in
	*planned*) one_failover "$@" ;;
	*) one_point "$@" ;;
	esac
}

[ -z "${LIST:-}" ] || { chosen_pairs; exit 0; }
chosen_pairs >"$tmp/pairs"
requires qemu-img qemu-nbd
write_fence
start_faulty_pair
stop_daemon beta
set_option beta fence-hook "$tmp/fence"
faulty_daemon beta
pair=setup home= again=0
run_pairs
pair="the end"
! is_there g || remove_all
pair=
stop_proxies
finish
echo "$pairs pairs of row and fault of replication in $took_s s: points were whole, the guest ran on exactly one side, nothing was" \
	"left behind ($missed rows were not reached, $again fail-overs were asked for again, daemons died by themselves $deaths times," \
	"$(emulators_toll))"
[ "$deaths" = 0 ] || fail "a daemon died by itself"
