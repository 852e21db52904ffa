#!/bin/sh
# libvirt's own migration, between two real libvirtd, through `novacron relay`: with the connection cut in the middle, and
# back with --parallel (QEMU's multifd: several connections). Each libvirtd has a mount namespace of its own, in which
# $tmp/mig is its host's directory: both know the migration socket and the serial ports by the same names. It also has
# the user that libvirt looks for, which a package with services would make.
. "${srcdir:-.}/tests/integration/relay.inc"
requires libvirtd virsh unshare mount
[ "$(id -u)" = 0 ] || { say "skipped: two libvirtd take root"; exit 77; }
prepare_relays
mkdir -p "$tmp/mig"

write_libvirt_config() { # HOST
	mkdir -p "$tmp/$1/etc" "$tmp/$1/lib" "$tmp/$1/cache" "$tmp/$1/log" "$tmp/$1/sock" "$tmp/$1/mig"
	cat >"$tmp/$1/etc/libvirtd.conf" <<-END
	host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
	unix_sock_dir = "$tmp/$1/sock"
	auth_unix_rw = "none"
	auth_unix_ro = "none"
	log_level = 3
	log_outputs = "3:stderr"
	END
	{ cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"; } >"$tmp/$1/passwd"
	{ cat /etc/group; echo "libvirt-qemu:x:64055:"; } >"$tmp/$1/group"
	cat >"$tmp/$1/etc/qemu.conf" <<-END
	user = "root"
	group = "root"
	security_driver = "none"
	cgroup_controllers = []
	namespaces = []
	remember_owner = 0
	stdio_handler = "file"
	END
}

start_libvirtd() { # HOST
	write_libvirt_config "$1"
	unshare -m -u sh -c '
		set -e
		hostname "$1"
		mount -t tmpfs none /run
		mkdir -p /run/libvirt /var/cache/libvirt /var/log/libvirt
		mount --bind "$2/$1/etc" /etc/libvirt
		mount --bind "$2/$1/lib" /var/lib/libvirt
		mount --bind "$2/$1/cache" /var/cache/libvirt
		mount --bind "$2/$1/log" /var/log/libvirt
		mount --bind "$2/$1/mig" "$2/mig"
		mount --bind "$2/$1/passwd" /etc/passwd
		mount --bind "$2/$1/group" /etc/group
		exec libvirtd -f "$2/$1/etc/libvirtd.conf" -p "$2/$1/libvirtd.pid"' sh "$1" "$tmp" >"$tmp/$1.log" 2>&1 &
	echo $! >>"$tmp/helpers"
	wait_for "libvirtd of $1" 30 virsh_on "$1" list
}

uri() { # HOST
	echo "qemu+unix:///system?socket=$tmp/$1/sock/libvirt-sock"
}

virsh_on() { # HOST COMMAND...
	virsh_host=$1
	shift
	virsh -q -c "$(uri "$virsh_host")" "$@"
}

domain_is() { # HOST STATE
	[ "$(virsh_on "$1" domstate g1 2>/dev/null | head -n 1)" = "$2" ]
}

beats() { # INDEX COUNT
	[ "$(grep -c " $1\$" "$tmp/beats")" -gt "$2" ]
}

serial_xml() { # PORT
	echo "<serial type='unix'><source mode='bind' path='$tmp/mig/serial$1.sock'/><target port='$1'/></serial>"
}

mkdir -p /var/lib/libvirt /etc/libvirt # where the namespaces' own are mounted
start_libvirtd alpha
start_libvirtd beta
cat >"$tmp/g1.xml" <<END
<domain type='qemu'>
  <name>g1</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>$NOVA_GUEST/vmlinuz</kernel><initrd>$NOVA_GUEST/initrd</initrd>
    <cmdline>console=ttyS0 loglevel=5 panic=0 nokaslr mitigations=off fill=text:20,rand:60 dirty=verify:10:1</cmdline></os>
  <features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    $(serial_xml 0)$(serial_xml 1)
    <memballoon model='none'/></devices>
</domain>
END
virsh_on alpha define "$tmp/g1.xml" >/dev/null
virsh_on alpha start g1 >/dev/null
"$NOVA_TOOLS/console" "$tmp/console-g1.log" "$tmp/console.fifo" "$tmp/alpha/mig/serial0.sock" "$tmp/beta/mig/serial0.sock" &
echo $! >>"$tmp/helpers"
"$NOVA_TOOLS/heartbeat" "$tmp/beats" "$tmp/alpha/mig/serial1.sock" "$tmp/beta/mig/serial1.sock" >"$tmp/beats.json" &
echo $! | tee -a "$tmp/helpers" >"$tmp/beats.pid"
wait_for "the guest is ready" 60 grep -q WL-READY "$tmp/console-g1.log"

virsh_migrate() { # FROM TO [OPTION...]
	from=$1 to=$2
	shift 2
	virsh_on "$from" migrate --live --persistent --undefinesource --domain g1 --desturi "$(uri "$to")" \
		--migrateuri "unix://$tmp/mig/q.sock" "$@"
}

say "live, with the connection cut in the middle"
start_relays "$tmp/alpha/mig/q.sock" "$tmp/beta/mig/q.sock" --bandwidth 100M
proxy "every 12000000 reset 2"
virsh_migrate alpha beta
expect_relays_end 0 0
[ "$(relay_report alpha .reconnects)" = 2 ] || fail "the link was lost $(relay_report alpha .reconnects) times, not 2"
domain_is beta running || fail "the domain is not running on beta"
! virsh_on alpha domstate g1 >/dev/null 2>&1 || fail "the domain is still known on alpha"
wait_for "the guest runs on beta" 10 beats 1 20

say "back, with several connections"
start_relays "$tmp/beta/mig/q.sock" "$tmp/alpha/mig/q.sock" --bandwidth 200M
virsh_migrate beta alpha --parallel --parallel-connections 2
expect_relays_end 0 0
[ "$(relay_report alpha .connections)" = 3 ] || fail "$(relay_report alpha .connections) connections, not 3"
domain_is alpha running || fail "the domain is not running on alpha"
wait_for "the guest runs on alpha" 10 beats 0 $(($(grep -c ' 0$' "$tmp/beats") + 20))

kill "$(cat "$tmp/beats.pid")"
wait "$(cat "$tmp/beats.pid")" || :
say "heartbeat: $(cat "$tmp/beats.json")"
jq -e '.missing == 0 and .duplicated == 0 and .max_gap_ms < 3000' <"$tmp/beats.json" >/dev/null || fail "beats were lost"
virsh_on alpha destroy g1 >/dev/null
virsh_on alpha undefine g1 >/dev/null
for pid in $(cat "$tmp/helpers"); do
	kill "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
done
rm -f "$tmp"/*/mig/*.sock "$tmp"/*/sock/* # libvirtd leaves its sockets
leak_check
