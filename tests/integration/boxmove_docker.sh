#!/bin/sh
# A Docker container moves between two daemons, each with its own engine: its files are the same over there, also those that
# it has changed or deleted, and it starts again; whatever fails before the commit leaves it running where it was, and no
# container, image or file over there. Layers that the engine over there has are not sent.
driver=docker
. "${srcdir:-.}/tests/integration/boxmove.inc"
requires dockerd curl
prepare_boxes
cleanup_fn clear_engines
start_engine alpha
start_engine beta
start_daemon alpha
start_daemon beta
nova alpha import "$tmp/alpha/fs.tar" --driver docker --name bb:1 >/dev/null

images_on() { # HOST
	docker_on "$1" GET "/images/json?all=1"
	jq -r '.[].Id' "$tmp/dk.answer" | sort
}

nothing_staged() {
	staged=$(find "$tmp"/*/state/moving -mindepth 1)
	[ -z "$staged" ] || fail "left: $staged"
}

create_box() { # GUEST
	nova alpha create "$1" --driver docker --image bb:1 --memory 64M --env A=B --command /bin/sh --command -c --command "$counting" >/dev/null
	nova alpha start "$1" >/dev/null
	counts_on alpha "$1"
}
create_box g1
in_container() { # HOST GUEST SCRIPT
	nsenter -t "$(pid_on "$1" "$2")" -m /bin/busybox sh -c "$3"
}
in_container alpha g1 'echo "written by the container" >/odd/later; busybox rm /odd/mine; busybox ln -s random /odd/link; busybox chmod 600 /odd/abs/../odd/random'
list_files "$(files_of alpha g1)" >"$tmp/files"
images_on alpha >"$tmp/images"

say "the destination refuses, before and after the files are there"
fault_at beta destination admit
refused_move 'refused row admit' --mode cold
fault_at beta destination commit
refused_move 'refused row commit' --mode cold
fault_at beta none none
[ -z "$(images_on beta)$(containers_on beta)" ] || fail "left on beta: $(images_on beta) $(containers_on beta)"
images_on alpha | cmp -s - "$tmp/images" || fail "images on alpha: $(images_on alpha)"
nothing_staged

say "cold"
born=$(born_on alpha g1)
move alpha g1 --mode cold
first=$(wire_of "$tmp/report")
say "first: $(jq -c '{wire_bytes, encoded_bytes, contents, downtime_ms, total_ms, lost}' "$tmp/report")"
counts_on beta g1
[ "$(born_on beta g1)" != "$born" ] || fail "it was not started anew"
list_files "$(files_of beta g1)" >"$tmp/files.there"
cmp -s "$tmp/files" "$tmp/files.there" || fail "files differ: $(diff "$tmp/files" "$tmp/files.there" | head -40)"
[ -z "$(containers_on alpha)" ] || fail "containers on alpha: $(containers_on alpha)"
images_on alpha | cmp -s - "$tmp/images" || fail "images on alpha: $(images_on alpha)"
docker_on beta GET /containers/g1/json
jq -e '.HostConfig | .NetworkMode == "none" and .Memory == 67108864 and (.Privileged | not) and .SecurityOpt == ["no-new-privileges"]' "$tmp/dk.answer" >/dev/null ||
	fail "its configuration: $(jq -c .HostConfig "$tmp/dk.answer")"

say "another container of the same image"
create_box g2
move alpha g2 --mode cold
second=$(wire_of "$tmp/report")
say "second: $(jq -c '{wire_bytes, encoded_bytes, contents, downtime_ms, total_ms}' "$tmp/report")"
counts_on beta g2
say "bytes on the wire: $first, then $second"
[ "$second" -lt $((first / 4)) ] || fail "the second move took $second bytes, the first $first"

say "back, stopped"
in_container beta g1 'echo "written over there" >/odd/there'
nova beta stop g1 >/dev/null
job=$(start_migration beta g1 --mode cold)
expect_outcome beta "$job" completed 40
guest_is alpha g1 stopped || fail "g1 is $(guest_state alpha g1)"
nova alpha start g1 >/dev/null
counts_on alpha g1
[ "$(cat "$(files_of alpha g1)/odd/there")" = "written over there" ] || fail "what it wrote on beta is not there"
[ ! -e "$(files_of alpha g1)/odd/mine" ] || fail "a file that it deleted is back"
nova alpha delete g1 --force >/dev/null
images_on alpha | cmp -s - "$tmp/images" || fail "images on alpha: $(images_on alpha)"
nothing_staged
finish_boxes
