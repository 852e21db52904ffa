#!/bin/sh
# A container of containerd moves between two daemons, each with its own containerd: its files are the same over there, also
# those that it has changed or deleted, and it starts again; whatever fails before the commit leaves it running where it was,
# and no container, image, snapshot or file over there. Layers that the containerd over there has are not sent. Kata's guests
# take the same way, here with the shim of the tests' own (tests/kata-shim).
driver=containerd
. "${srcdir:-.}/tests/integration/boxmove.inc"
own_containerd_place "$0"
mkdir -p "$tmp/shim"
cp "$top/tests/kata-shim" "$tmp/shim/containerd-shim-kata-v2"
chmod +x "$tmp/shim/containerd-shim-kata-v2"
PATH=$tmp/shim:$PATH
export PATH
prepare_boxes
cleanup_fn clear_containerds
start_containerd_of alpha
start_containerd_of beta
start_daemon alpha
start_daemon beta
nova alpha import "$tmp/alpha/fs.tar" --driver containerd --name bb:1 >/dev/null

# All that a containerd has, by name.
holdings() { # HOST
	ctr_on "$1" image ls -q | sort
	ctr_on "$1" content ls -q | sort
	ctr_on "$1" snapshot ls | awk 'NR > 1 { print $1, $NF }' | sort
	ctr_on "$1" container ls -q
	ctr_on "$1" leases ls -q
	ctr_on "$1" content active | awk 'NR > 1'
}

nothing_on() { # HOST
	[ -z "$(holdings "$1")" ] || fail "left on $1: $(holdings "$1")"
}

nothing_staged() {
	staged=$(find "$tmp"/*/state/moving -mindepth 1 2>/dev/null || :)
	[ -z "$staged" ] || fail "left: $staged"
}

create_box() { # GUEST [OPTION...]
	box=$1
	shift
	nova alpha create "$box" --driver containerd --image bb:1 --memory 64M --env A=B --command /bin/sh --command -c --command "$counting" "$@" >/dev/null
	nova alpha start "$box" >/dev/null
	counts_on alpha "$box"
}

in_container() { # HOST GUEST SCRIPT
	nsenter -t "$(pid_on "$1" "$2")" -m /bin/busybox sh -c "$3"
}

say "what drivers say"
for name in containerd kata; do
	nova alpha drivers --json | jq -e --arg name $name '.[] | select(.name == $name) | .verbs["migrate-out"] == true and .facts["move-cold"] == "yes" and
		.facts["move-warm"] != "yes"' >/dev/null || fail "$name: $(nova alpha drivers --json)"
done
holdings alpha >"$tmp/holdings"
create_box g1
in_container alpha g1 'echo "written by the container" >/odd/later; busybox rm /odd/mine; busybox ln -s random /odd/link; busybox chmod 600 /odd/random;
	busybox rm -r /odd/gone; busybox mkdir /odd/gone; echo new >/odd/gone/new'
list_files "$(files_of alpha g1)" >"$tmp/files"

say "the destination refuses, before and after the files are there"
for row in admit receive commit; do
	fault_at beta destination $row
	refused_move "refused row $row" --mode cold
	nothing_on beta
	nothing_staged
done
fault_at beta none none
expect_refused 'processes do not move along' nova alpha migrate g1 --to beta --mode warm

say "a specification that the destination's policy does not allow"
mkdir -p "$tmp/alpha/own"
create_box g0 --volume "source=$tmp/alpha/own,target=/own"
job=$(start_migration alpha g0 --mode cold)
expect_outcome alpha "$job" undone 40
expect_error alpha "$job" 'outside of the roots'
counts_on alpha g0
nova alpha delete g0 --force >/dev/null
nothing_on beta

say "what has come cannot be unpacked over there: a snapshot of that name is somebody else's"
uuid=$(nova alpha show g1 --json | jq -r .uuid)
ctr_on beta snapshot prepare "novacron-$uuid-layer-0" >/dev/null
refused_move . --mode cold
grep -q 'could not be received: .*layer-0": already exists' "$tmp/beta.log" || fail "beta does not say why"
ctr_on beta snapshot rm "novacron-$uuid-layer-0" >/dev/null 2>&1 || :
nothing_on beta

say "either daemon, or both containerds, are killed while files flow: the container runs again where it was"
flows() { # JOB
	[ "$(job_field alpha "$1" .step)" = precopy ] && guest_is alpha g1 stopped
}
for killed in beta alpha containerds; do
	job=$(start_migration alpha g1 --mode cold --bandwidth 1M)
	wait_for "files flow" 20 flows "$job"
	case $killed in
	containerds)
		kill_containerd_of alpha
		kill_containerd_of beta
		wait_for "the move is given up" 60 test ! -e "$tmp/alpha/state/moving/$uuid"
		start_containerd_of beta
		start_containerd_of alpha
		;;
	*)
		stop_daemon $killed KILL
		start_daemon $killed
		;;
	esac
	expect_outcome alpha "$job" undone 60
	wait_for "g1 runs again" 20 guest_is alpha g1 running
	counts_on alpha g1
	wait_for "nothing is left of g1 on beta" 40 no_trace_of beta g1
	nothing_on beta
done

say "cold"
born=$(born_on alpha g1)
move alpha g1 --mode cold
first=$(wire_of "$tmp/report")
say "first: $(jq -c '{wire_bytes, encoded_bytes, contents, downtime_ms, total_ms, lost}' "$tmp/report")"
counts_on beta g1
[ "$(born_on beta g1)" != "$born" ] || fail "it was not started anew"
list_files "$(files_of beta g1)" >"$tmp/files.there"
cmp -s "$tmp/files" "$tmp/files.there" || fail "files differ: $(diff "$tmp/files" "$tmp/files.there" | head -40)"
holdings alpha | cmp -s - "$tmp/holdings" || fail "left on alpha: $(holdings alpha | diff "$tmp/holdings" -)"
ctr_on beta container info g1 | jq -e '.Spec | .process.noNewPrivileges and .linux.resources.memory.limit == 67108864 and
	([.process.env[] | select(. == "A=B")] | length == 1) and (.linux.namespaces | map(.type) | sort == ["ipc", "mount", "network", "pid", "uts"])' >/dev/null ||
	fail "its configuration: $(ctr_on beta container info g1)"

say "another container of the same image"
create_box g2
move alpha g2 --mode cold
second=$(wire_of "$tmp/report")
say "second: $(jq -c '{wire_bytes, encoded_bytes, contents, downtime_ms, total_ms}' "$tmp/report")"
counts_on beta g2
say "bytes on the wire: $first, then $second"
[ "$second" -lt $((first / 4)) ] || fail "the second move took $second bytes, the first $first"

say "back, running; and again there and back, stopped"
in_container beta g1 'echo "written over there" >/odd/there'
move beta g1 --mode cold
say "back: $(jq -c '{wire_bytes, contents, downtime_ms, total_ms}' "$tmp/report")"
[ "$(wire_of "$tmp/report")" -lt $((first / 4)) ] || fail "the way back took $(wire_of "$tmp/report") bytes, the first $first"
counts_on alpha g1
nova alpha stop g1 >/dev/null
for host in alpha beta; do
	job=$(start_migration $host g1 --mode cold)
	expect_outcome $host "$job" completed 40
	guest_is "$(other_host $host)" g1 stopped || fail "g1 is $(guest_state "$(other_host $host)" g1)"
done
nova alpha start g1 >/dev/null
counts_on alpha g1
[ "$(cat "$(files_of alpha g1)/odd/there")" = "written over there" ] || fail "what it wrote on beta is not there"
[ ! -e "$(files_of alpha g1)/odd/mine" ] || fail "a file that it deleted is back"
nova alpha delete g1 --force >/dev/null
holdings alpha | cmp -s - "$tmp/holdings" || fail "left on alpha: $(holdings alpha | diff "$tmp/holdings" -)"

say "a guest of Kata, with the tests' shim"
create_box g3 --driver kata
move alpha g3 --mode cold
say "kata: $(jq -c '{wire_bytes, contents, downtime_ms, total_ms}' "$tmp/report")"
counts_on beta g3
nova beta stats g3 --json | jq -e '.hypervisor.status == "running"' >/dev/null || fail "stats: $(nova beta stats g3 --json)"
for guest in g2 g3; do
	nova beta delete $guest --force >/dev/null
done
nothing_on beta
nothing_staged
finish_boxes
