#!/bin/sh
# Points of a guest with the real qemu-ga in it: they are application-consistent (the file system of the newest one needs no
# repair, its journal is empty), and say so; without the agent, or with one that sleeps, they are crash-consistent and come all
# the same. A daemon that is killed while the guest's file systems stand still lets them go on when it is back.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/integration/replica.inc"
requires qemu-img qemu-nbd mke2fs e2fsck dumpe2fs
prepare_pair
start_daemon alpha
start_daemon beta
mkdir -p "$tmp/alpha/disks"
cat "$NOVA_GUEST/initrd" "$NOVA_GUEST/agent.cpio" >"$tmp/shared/initrd"
guest_initrd=$tmp/shared/initrd
mke2fs -q -t ext4 "$tmp/alpha/disks/data.raw" 48M 2>/dev/null
boot alpha g1 pc 256M "fill=text:1 dirty=none" --agent --disk "path=$tmp/alpha/disks/data.raw,format=raw"

in_guest() { # COMMAND: until it has done it
	guest_console alpha g1 "sh $1 && echo WL-DID\$((1))" WL-DID1 30 >/dev/null
}

in_guest 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo "#!/bin/sh" >/hook && chmod +x /hook'
guest_console alpha g1 'sh i=0; while :; do i=$((i+1)); echo $i >/mnt/n.new && sync /mnt/n.new && mv /mnt/n.new /mnt/n; echo $i >>/mnt/log; done 2>/dev/null & echo WL-WRITES$((1))' WL-WRITES1 20 >/dev/null
written() {
	guest_console alpha g1 'sh echo WL-N=$(cat /mnt/n).' 'WL-N=[0-9]+[.]' 20 | grep -o '[0-9]*'
}

has_written_more() {
	[ "$(written)" -gt "$from" ]
}

writes() { # WHEN
	from=$(written)
	wait_for "the guest writes $1" 20 has_written_more
}

# Between two points: an agent that ends while the file systems stand still is one that nobody can ask to let them go on.
agent_signal() { # SIGNAL
	nova alpha replicate pause g1 >/dev/null
	writes "while there are no points"
	in_guest "kill -$1 \$(cat /run/qga.pid)"
	nova alpha replicate resume g1 >/dev/null
}

newest_is() { # CONSISTENCY
	newest_since alpha "$since" && [ "$(shown beta '.points[-1].consistency')" = "$1" ]
}

points_are() { # CONSISTENCY WHEN
	since=$(date +%s%3N)
	wait_for "a $1-consistent point $2" 30 newest_is "$1"
}

# Into $tmp/point.raw, while no other one comes.
take_newest() {
	nova alpha replicate pause g1 >/dev/null
	qemu-img convert -U -O raw "$(shown beta '.points[-1].files[0]')" "$tmp/point.raw"
	dumpe2fs -h "$tmp/point.raw" >"$tmp/header" 2>/dev/null
	nova alpha replicate resume g1 >/dev/null
}

said() { # PATTERN
	grep -q "$1" "$tmp/alpha.log"
}

say "no agent runs"
nova alpha replicate create g1 --to beta --every 1s --keep 2 >/dev/null
wait_for "points" 40 more_points alpha 3
points_are crash "without an agent"
take_newest
grep -q needs_recovery "$tmp/header" || fail "the file system was not in use: nothing is shown by this test"
said 'points are crash-consistent: no agent runs' || fail "alpha does not say why points are crash-consistent"

say "an agent runs"
in_guest "qemu-ga -d -p /dev/vport* -t /run -f /run/qga.pid -l /run/qga.log -F/hook"
points_are application "with an agent"
take_newest
! grep -q needs_recovery "$tmp/header" || fail "the journal of an application-consistent point is in use"
e2fsck -fn "$tmp/point.raw" >"$tmp/fsck" 2>&1 || fail "e2fsck of an application-consistent point: $(cat "$tmp/fsck")"
said 'points are application-consistent' || fail "alpha does not say that points are application-consistent"
writes "after points"

say "it sleeps, and wakes up"
agent_signal STOP
points_are crash "while the agent sleeps"
said 'no answer to guest-sync-delimited' || fail "alpha does not say that the agent is silent"
writes "while the agent sleeps"
in_guest 'kill -CONT $(cat /run/qga.pid)'
points_are application "when the agent is awake"
writes "when it is awake"

say "the daemon is killed while the file systems stand still"
is_frozen() {
	[ "$(guest_console alpha g1 'sh echo WL-S=$(tail -n 1 /run/hooked 2>/dev/null).' 'WL-S=[a-z]*[.]' 20)" = WL-S=freeze. ]
}
in_guest 'echo "echo \$1 >>/run/hooked; [ \$1 = thaw ] || sleep 6" >>/hook'
wait_for "a freeze that takes 6 s" 30 is_frozen
stop_daemon alpha KILL
start_daemon alpha
in_guest 'echo "#!/bin/sh" >/hook'
points_are application "after that"
writes "after that"
agent_signal TERM
points_are crash "when the agent is gone"
writes "when the agent is gone"

nova alpha delete g1 --force >/dev/null
nova alpha replicate delete g1 >/dev/null
nova beta replicate delete g1 >/dev/null 2>&1 || :
finish
