#!/bin/sh
# Every way in which what is kept of a guest can be wrong or missing, on either side: bytes, never a page.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/integration/baseline.inc"

there_and_back

say "the source has nothing: the destination's index travels"
nova alpha baseline drop g1 >/dev/null
move_checked alpha g1
expect '.baseline.counterpart == "none" and .codec.baseline_pages > 4000'
wait_for "both hosts keep g1" 20 both_kept none

say "pages cut short at the destination"
truncate -s 10000000 "$(file_of alpha pages)"
go beta
expect '(.begun_again | test("damaged")) and .codec.baseline_pages == 0'

say "pages cut short at the source"
truncate -s 10000000 "$(file_of alpha pages)"
go alpha
expect '.begun_again == null and .codec.baseline_pages > 4000'

say "an index that is cut short, and one that has a wrong bit, are not offered"
truncate -s 30000 "$(file_of alpha index)"
go beta
expect '.baseline == null and .begun_again == null'
printf '\377' | dd of="$(file_of beta index)" bs=1 seek=50001 conv=notrunc status=none
go alpha
expect '.baseline == null and .begun_again == null'

say "not wanted"
go beta --no-baseline
expect '.baseline == null and .codec.baseline_pages == 0'
finish
