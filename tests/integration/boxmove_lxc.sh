#!/bin/sh
# An LXC container moves between two daemons, each with its own lxcpath: its files are the same over there, and it starts
# again; whatever fails before the commit leaves it running where it was, and nothing over there. Files that another
# container of its owner has over there are not sent.
driver=lxc
. "${srcdir:-.}/tests/integration/boxmove.inc"
requires lxc-start
prepare_boxes
start_proxy
set_options
cleanup_fn clear_both
start_daemon alpha
start_daemon beta

create_box() { # GUEST
	nova alpha create "$1" --driver lxc --rootfs "$tmp/alpha/fs.tar" --memory 64M --env A=B --command /bin/sh --command -c --command "$counting" >/dev/null
	nova alpha start "$1" >/dev/null
	counts_on alpha "$1"
}
create_box g1
echo 'written by the container' >"$(files_of alpha g1)/odd/later"
list_files "$(files_of alpha g1)" >"$tmp/files"

say "the destination refuses, before and after the files are there"
fault_at beta destination admit
refused_move 'refused row admit' --mode cold
fault_at beta destination receive
refused_move 'refused row receive' --mode cold
fault_at beta destination commit
refused_move 'refused row commit' --mode cold
fault_at beta none none
[ -z "$(ls "$tmp/beta/state/lxc" 2>/dev/null)" ] || fail "left on beta: $(ls "$tmp/beta/state/lxc")"

say "the destination's disk is too small: it says so"
mkdir -p "$tmp/beta/state/lxc"
mount -t tmpfs -o size=100k,mode=0700 nova-test "$tmp/beta/state/lxc"
cleanup_fn "umount -l '$tmp/beta/state/lxc' 2>/dev/null || :"
refused_move 'beta.*No space left' --mode cold
umount "$tmp/beta/state/lxc"

say "either daemon is killed while files flow: the container runs again where it was"
flows() { # JOB
	[ "$(job_field alpha "$1" .step)" = precopy ] && guest_is alpha g1 stopped
}
for killed in beta alpha; do
	job=$(start_migration alpha g1 --mode cold --bandwidth 1M)
	wait_for "files flow" 20 flows "$job"
	stop_daemon $killed KILL
	start_daemon $killed
	expect_outcome alpha "$job" undone 40
	wait_for "g1 runs again" 20 guest_is alpha g1 running
	counts_on alpha g1
	wait_for "nothing is left of g1 on beta" 20 no_trace_of beta g1
	wait_for "no file of g1 is left on beta" 10 test ! -e "$tmp/beta/state/lxc/g1"
done

say "cold, with a cut of the connection"
born=$(born_on alpha g1)
job=$(start_migration alpha g1 --mode cold --bandwidth 8M)
wait_for "files flow" 20 flows "$job"
proxy reset
expect_outcome alpha "$job" completed 60
job_field alpha "$job" .report >"$tmp/report"
guest_is beta g1 running || fail "g1 is $(guest_state beta g1) on beta"
no_trace_of alpha g1 || fail "a trace of g1 on alpha"
first=$(wire_of "$tmp/report")
say "first: $(jq -c '{reconnects, resent_bytes, wire_bytes, encoded_bytes, contents, downtime_ms, total_ms, lost}' "$tmp/report")"
counts_on beta g1
[ "$(born_on beta g1)" != "$born" ] || fail "it was not started anew"
list_files "$(files_of beta g1)" >"$tmp/files.there"
cmp -s "$tmp/files" "$tmp/files.there" || fail "files differ: $(diff "$tmp/files" "$tmp/files.there" | head -5)"
[ "$(du -k "$(files_of beta g1)/odd/hole" | cut -f 1)" -lt 1000 ] || fail "the hole was filled"
[ ! -e "$tmp/alpha/state/lxc/g1" ] || fail "its directory is still on alpha"
grep -q "^lxc.rootfs.path = dir:$tmp/beta/state/lxc/g1/rootfs$" "$tmp/beta/state/lxc/g1/config" || fail "its configuration: $(cat "$tmp/beta/state/lxc/g1/config")"

say "another container of the same files"
create_box g2
move alpha g2 --mode cold
second=$(wire_of "$tmp/report")
say "second: $(jq -c '{wire_bytes, encoded_bytes, contents, downtime_ms, total_ms}' "$tmp/report")"
counts_on beta g2
say "bytes on the wire: $first, then $second"
[ "$second" -lt $((first / 4)) ] || fail "the second move took $second bytes, the first $first"

say "back, stopped"
nova beta stop g2 >/dev/null
job=$(start_migration beta g2 --mode cold)
expect_outcome beta "$job" completed 40
guest_is alpha g2 stopped || fail "g2 is $(guest_state alpha g2)"
nova alpha start g2 >/dev/null
counts_on alpha g2
clear_nothing=$(find "$tmp"/*/run "$tmp"/*/state -name '*.in' -o -name '*.out')
[ -z "$clear_nothing" ] || fail "sockets are left: $clear_nothing"
finish_boxes
