#!/bin/sh
# kill -9 of containerd, and of a guest's shim, in the middle of verbs: the verb ends with an error that says so, the guest's
# state follows, guests outlive containerd, and nothing is left behind.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
own_containerd_place "$0"
prepare_alone
make_rootfs
start_runtime containerd
start_daemon alpha
nova alpha import "$tmp/alpha/fs.tar" --driver containerd --name bb:1 >/dev/null

job_runs() {
	[ "$(nova alpha jobs --running --json | jq length)" != 0 ]
}

no_job_runs() {
	[ "$(nova alpha jobs --running --json | jq length)" = 0 ]
}

is_seen() {
	nova alpha found --driver containerd >/dev/null
}

# containerd is stopped first, so that the verb is under way for certain when it dies.
in_the_middle() { # VERB COMMAND...
	say "kill -9 of containerd during $1"
	shift
	kill -STOP "$(cat "$tmp/ctrd.own")"
	"$@" >"$tmp/out" 2>&1 &
	verb_pid=$!
	wait_for "the verb is under way" 5 job_runs
	kill_containerd
	start_containerd
	status=0
	wait "$verb_pid" || status=$?
	[ "$status" != 0 ] || fail "the verb succeeded without containerd"
	grep -Eiq 'containerd does not answer' "$tmp/out" || fail "nothing about containerd: $(cat "$tmp/out")"
	wait_for "the verb's job has ended" 10 no_job_runs
	wait_for "containerd is seen again" 10 is_seen
}

# As soon as a file is there, which a row makes: containerd dies in that row or a later one. Both ends are well.
dies_when() { # FILE COMMAND...
	seen=$1
	shift
	"$@" >"$tmp/out" 2>&1 &
	verb_pid=$!
	until [ -e "$seen" ] || ! kill -0 "$verb_pid" 2>/dev/null; do :; done
	kill_containerd
	start_containerd
	status=0
	wait "$verb_pid" || status=$?
	wait_for "the verb's job has ended" 45 no_job_runs
	wait_for "containerd is seen again" 10 is_seen
}

in_the_middle create create_guest containerd g1
[ -z "$(guest_state alpha g1)" ] || fail "a guest whose creation failed is in the list"
nothing_in_containerd

for round in 1 2 3; do
	say "kill -9 of containerd while it makes the container, round $round: what it made is found and taken back"
	dies_when "$tmp/alpha/state/guests/g1" create_guest containerd g1
	if [ "$status" = 0 ]; then
		guest_is alpha g1 stopped || fail "g1 is $(guest_state alpha g1)"
		nova alpha delete g1 >/dev/null
	fi
	[ -z "$(guest_state alpha g1)" ] || fail "a guest whose creation failed is in the list"
	nothing_in_containerd
done

say "directories of snapshots that containerd does not know, as a kill leaves them, are in the way of nothing"
snapshots=$tmp/ctrd/root/io.containerd.snapshotter.v1.overlayfs/snapshots
number=1
while [ "$number" -lt 60 ]; do
	if mkdir "$snapshots/$number" 2>/dev/null; then
		touch "$snapshots/$number/by-hand"
	fi
	number=$((number + 1))
done
create_guest containerd g1 >/dev/null


say "nor is the beginning of a start; one with more in it is refused, and kept"
bundle=$tmp/ctrd/state/io.containerd.runtime.v2.task/novacron/g1
mkdir -p "$bundle/rootfs"
echo '{}' >"$bundle/config.json"
echo 1 >"$bundle/address"
expect_refused "left of a start of g1 that was cut off.*address" nova alpha start g1
[ -s "$bundle/config.json" ] || fail "what may be a shim's was removed"
rm "$bundle/address"
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"
nova alpha stop g1 --timeout 5s >/dev/null

for round in 1 2; do
	say "kill -9 of containerd while a task starts, round $round"
	dies_when "$tmp/ctrd/state/io.containerd.runtime.v2.task/novacron/g1" nova alpha start g1
	guest_is alpha g1 running || nova alpha start g1 >/dev/null
	counts g1 || fail "g1 does not count"
	[ "$(shims g1 | wc -l)" = 1 ] || fail "g1 has more shims than one: $(shims g1)"
	nova alpha stop g1 --timeout 5s >/dev/null
done

in_the_middle start nova alpha start g1
guest_is alpha g1 running || nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"

for verb in pause stop; do
	in_the_middle $verb nova alpha $verb g1
	counts g1 || fail "g1 did not outlive containerd"
	wait_for "g1's state is what containerd says" 10 guest_is alpha g1 running
done

say "kill -9 of the shim: its container's end is seen"
kill -9 "$(shims g1)"
wait_for "the end is seen" 15 not_running alpha g1
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count after the end of its shim"

for verb in pause stop; do
	say "kill -9 of the shim during $verb"
	shim=$(shims g1)
	kill -STOP "$shim"
	nova alpha $verb g1 >"$tmp/out" 2>&1 &
	verb_pid=$!
	wait_for "the verb is under way" 5 job_runs
	kill -9 "$shim"
	status=0
	wait "$verb_pid" || status=$?
	[ "$verb:$status" != pause:0 ] || fail "pause succeeded without a shim"
	wait_for "the verb's job has ended" 30 no_job_runs
	wait_for "g1's end is seen" 15 not_running alpha g1
	nova alpha start g1 >/dev/null
	counts g1 || fail "g1 does not count after $verb"
done

in_the_middle delete nova alpha delete g1 --force
[ -z "$(guest_state alpha g1)" ] || nova alpha delete g1 --force >/dev/null
finish_alone
