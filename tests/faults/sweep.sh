#!/bin/sh
# sweep.sh: break every row of a live migration in every way, and look from the outside at what is left.
#
# The daemons' fault-hook runs before each row; it does the fault that $tmp/fault names, once. After each pair of row and
# fault the daemons that died are started again and the link is mended. Then, within a minute, the invariant must hold:
# no job runs, exactly one host has the guest, its heart beats there and nowhere else, there is one QEMU at most, and
# nothing of the guest is left on the other host. Where the fault killed the QEMU that had the guest, it may be stopped.
#
# FAULTS and ROWS (SIDE:ROW) narrow the sweep down. The last line counts the pairs.
. "${srcdir:-.}/tests/lib.sh"

FAULTS=${FAULTS:-refused link-cut black-hole own-daemon peer-daemon own-qemu peer-qemu}
ROWS=${ROWS:-source:preflight source:connect source:reserve source:quiesce source:precopy source:switchover source:handover
	source:drain source:release destination:admit destination:prepare destination:receive destination:commit
	destination:run destination:drain}

other_host() {
	case $1 in alpha) echo beta ;; *) echo alpha ;; esac
}

# $tmp/fault: "SIDE ROW FAULT SOURCE DESTINATION"; the hook takes the file away before it acts.
write_hook() {
	cat >"$tmp/hook" <<-END
	#!/bin/sh
	[ -f "$tmp/fault" ] || exit 0
	read -r side row fault source destination <"$tmp/fault"
	[ "\$3 \$4 \$5" = "\$side \$row run" ] || exit 0
	mv "$tmp/fault" "$tmp/fault.done"
	case \$side in source) own=\$source peer=\$destination ;; *) own=\$destination peer=\$source ;; esac
	kill_qemu() {
		for file in /proc/[0-9]*/cmdline; do
			tr '\0' ' ' 2>/dev/null <"\$file" | grep -q "^[^ ]*qemu-system.*$tmp/\$1/run/guests/g/" || continue
			pid=\${file#/proc/}
			kill -9 "\${pid%/cmdline}"
		done
	}
	case \$fault in
	refused) exit 1 ;;
	link-cut) echo refuse >"$tmp/proxy-\$destination.fifo" ;;
	black-hole) echo hole >"$tmp/proxy-\$destination.fifo" ;;
	own-daemon) kill -9 "\$(cat "$tmp/\$own.pid")" ;;
	peer-daemon) kill -9 "\$(cat "$tmp/\$peer.pid")" ;;
	own-qemu) kill_qemu "\$own" ;;
	peer-qemu) kill_qemu "\$peer" ;;
	esac
	exit 0
	END
	chmod +x "$tmp/hook"
}

# Each host is reached through a proxy of its own.
start_proxies() {
	for host in alpha beta; do
		"$NOVA_TOOLS/tcp_proxy" "$address" "$address:$(cat "$tmp/$host.port")" "$tmp/proxy-$host.fifo" >"$tmp/proxy-$host.port" &
		echo $! >"$tmp/proxy-$host.pid"
		wait_for "the proxy of $host" 5 test -s "$tmp/proxy-$host.port"
		peer=$(other_host $host)
		sed -i "/^\[peer $host\]/,\$s/^address = .*/address = $address:$(cat "$tmp/proxy-$host.port")/" "$tmp/$peer.conf"
		sed -i "1i fault-hook = $tmp/hook" "$tmp/$peer.conf"
	done
}

revive() {
	for host in alpha beta; do
		echo pass >"$tmp/proxy-$host.fifo"
		kill -0 "$(cat "$tmp/$host.pid")" 2>/dev/null || start_daemon "$host"
	done
}

qemus() {
	for host in alpha beta; do
		qemu_pid "$host" g || :
	done | wc -l
}

idle() {
	for host in alpha beta; do
		[ "$(nova "$host" jobs --running --json | jq length)" = 0 ] || return 1
	done
}

# Where the guest is: "alpha", "beta", "alpha beta" or nothing.
hosts_with_guest() {
	for host in alpha beta; do
		[ -z "$(guest_state "$host" g)" ] || printf '%s ' "$host"
	done
}

settled() {
	idle || return 1
	case $(hosts_with_guest) in
	"alpha " | "beta ") ;;
	*) return 1 ;;
	esac
	home=$(hosts_with_guest)
	home=${home% }
	case $(guest_state "$home" g) in
	running) [ "$(qemus)" = 1 ] ;;
	stopped | failed) [ "$(qemus)" = 0 ] ;;
	*) return 1 ;;
	esac
}

describe() {
	for host in alpha beta; do
		echo "$host: guest $(guest_state $host g), jobs $(nova $host jobs --running --json | jq -c '[.[] | {job, side, step, undoing}]')"
	done
	echo "QEMUs: $(qemus)"
}

new_guest() {
	[ ! -f "$tmp/beats-g.pid" ] || { kill "$(cat "$tmp/beats-g.pid")" 2>/dev/null; rm -f "$tmp"/beats-g*; } || :
	boot alpha g pc 128M "fill=text:8"
	start_heartbeat g
	home=alpha
}

one() { # SIDE ROW FAULT
	away=$(other_host "$home")
	echo "$1 $2 $3 $home $away" >"$tmp/fault"
	timeout 60 "$NOVACRON" --socket "$tmp/$home/run/control.sock" migrate g --to "$away" --resume-limit 2s >"$tmp/last.log" 2>&1 || :
	rm -f "$tmp/fault"
	[ -f "$tmp/fault.done" ] || say "  the row was not reached"
	rm -f "$tmp/fault.done"
	revive
	if ! try 60 settled; then
		describe >&2
		fail "$1 $2 $3: not settled within 60 s"
	fi
	if [ "$(guest_state "$home" g)" = running ]; then
		runs_only_on g "$home" 10
		no_trace_of "$(other_host "$home")" g || fail "$1 $2 $3: something is left on $(other_host "$home")"
		return
	fi
	case $3 in
	*-qemu) nova "$home" delete g >/dev/null; new_guest ;;
	*) fail "$1 $2 $3: the guest does not run anywhere" ;;
	esac
}

prepare_pair
write_hook
start_proxies
start_daemon alpha
start_daemon beta
new_guest
pairs=0
for row in $ROWS; do
	for fault in $FAULTS; do
		say "${row%:*} ${row#*:} $fault (guest on $home)"
		one "${row%:*}" "${row#*:}" "$fault"
		pairs=$((pairs + 1))
	done
done
for host in alpha beta; do
	kill "$(cat "$tmp/proxy-$host.pid")"
	wait "$(cat "$tmp/proxy-$host.pid")" || :
	rm -f "$tmp/proxy-$host.fifo"
done
finish
echo "$pairs pairs of row and fault: the guest ran on exactly one side after each, nothing was left behind"
