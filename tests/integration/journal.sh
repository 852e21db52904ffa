#!/bin/sh
# The journal's disk is full, read-only, slow or damaged: the daemon refuses new work and says why, goes on serving the
# guests it has, and works again when the disk does. The guest's heart beats all the time.
. "${srcdir:-.}/tests/lib.sh"
. "${srcdir:-.}/tests/faults/faults.inc"

refuses() { # WORDS COMMAND...
	words=$1
	shift
	! nova alpha "$@" >"$tmp/said" 2>&1 || fail "alpha did what it cannot write down: $*"
	grep -Eq -- "$words" "$tmp/said" || fail "alpha says \"$(cat "$tmp/said")\", nothing about \"$words\""
}

# The daemon answers, nothing of the refused guest is there, and g runs.
serves() {
	guest_is alpha g running || fail "g is $(guest_state alpha g)"
	[ "$(nova alpha stats g --json | jq .name)" = '"g"' ] || nova alpha stats g >/dev/null || fail "no figures of g"
	no_trace_of alpha h || fail "something of the refused guest is there"
	runs_only_on g alpha 5
}

works_again() {
	nova alpha create h --memory 64M >/dev/null
	nova alpha delete h
}

start_faulty_pair
boot alpha g pc 128M fill=text:4
start_heartbeat g
pid=$(qemu_pid alpha g)

say "the disk is full"
fresh_journal alpha
dd if=/dev/zero of="$tmp/alpha/state/filler" bs=64k 2>/dev/null || :
dd if=/dev/zero of="$tmp/alpha/state/filler2" bs=512 2>/dev/null || :
refuses 'journal.*free some space' create h --memory 64M
refuses 'journal.*free some space' migrate g --to beta
serves
rm "$tmp/alpha/state/filler" "$tmp/alpha/state/filler2"
works_again

say "the disk becomes read-only"
order alpha 0 30 0 # EROFS
refuses 'journal' create h --memory 64M
refuses 'journal' migrate g --to beta
serves
order alpha 0 0 0
works_again

say "the disk is slow"
order alpha 0 0 200
works_again
nova alpha migrate g --to beta >/dev/null
runs_only_on g beta 10
order alpha 0 0 0
nova beta migrate g --to alpha >/dev/null
runs_only_on g alpha 10
pid=$(qemu_pid alpha g)

say "the journal is damaged"
stop_daemon alpha KILL
cp "$tmp/alpha/state/novacron.db" "$tmp/good.db"
sqlite3 "$tmp/alpha/state/novacron.db" 'pragma wal_checkpoint(truncate)' >/dev/null
dd if=/dev/urandom of="$tmp/alpha/state/novacron.db" bs=4096 seek=1 count=5 conv=notrunc 2>/dev/null
! "$NOVACROND" --config "$tmp/alpha.conf" >"$tmp/said" 2>&1 || fail "alpha started on a damaged journal"
grep -q 'journal.*damaged.*move it away' "$tmp/said" || fail "alpha says: $(cat "$tmp/said")"
[ "$(qemu_pid alpha g)" = "$pid" ] || fail "the guest's QEMU was touched"
runs_only_on g alpha 5

say "it is moved away, and the running guest adopted"
rm "$tmp"/alpha/state/novacron.db*
faulty_daemon alpha
nova alpha adopt g --qmp "$tmp/alpha/run/guests/g/qmp.sock" >/dev/null
serves
expect_steady_heart g 3000
stop_proxies
finish
