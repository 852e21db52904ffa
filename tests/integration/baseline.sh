#!/bin/sh
# A guest goes there and back: what the hosts kept of it is used; damaged, it costs bytes, never a page.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/integration/baseline.inc"

there_and_back
modes=$(stat -c %a "$(file_of alpha pages)" "$(file_of beta index)" | sort -u)
[ "$modes" = 600 ] || fail "baselines have the modes $modes"

say "damaged pages at the destination: it begins again without"
head -c 12000000 /dev/urandom | dd of="$(file_of beta pages)" bs=64k seek=60 conv=notrunc status=none
go alpha
expect '(.begun_again | test("damaged")) and .codec.baseline_pages == 0'

say "dropped"
nova alpha baseline drop --all | grep -q dropped || fail "nothing was dropped"
[ -z "$(kept alpha)$(ls "$tmp/alpha/state/baselines")" ] || fail "alpha still keeps something"
nova alpha baseline drop g1 2>/dev/null && fail "what is not there was dropped"
finish
