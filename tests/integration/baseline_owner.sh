#!/bin/sh
# What is kept of one guest serves another of the same owner and image if the operator says so, and never another owner's.
. "${srcdir:-.}/tests/lib.sh"

has_kept() { # HOST GUEST
	nova "$1" baseline list "$2" --json | jq -e '.[0].id' >/dev/null
}

prepare_pair
set_option alpha baseline-share owner
set_option beta baseline-share owner
start_daemon alpha
start_daemon beta

say "the first guest leaves its memory on both hosts"
boot alpha g1 pc 128M "fill=rand:16" --owner ada
move alpha g1
wait_for "beta keeps g1" 20 has_kept beta g1
nova beta delete g1 --force >/dev/null

say "another guest of the same owner and image uses it"
boot alpha g2 pc 128M "fill=rand:16" --owner ada
move_checked alpha g2
jq -e '.baseline.pages > 4000 and .codec.baseline_pages > 1000' <"$tmp/report" >/dev/null || fail "not used: $(cat "$tmp/report")"
nova beta delete g2 --force >/dev/null

say "the same image, but another owner: nothing is offered"
boot alpha g3 pc 128M "fill=rand:16" --owner bob
move_checked alpha g3
jq -e '.baseline == null and .codec.baseline_pages == 0' <"$tmp/report" >/dev/null || fail "used: $(cat "$tmp/report")"
finish
