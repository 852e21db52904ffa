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
g_pid=$(qemu_pid alpha g)

say "the disk is full"
fresh_journal alpha
dd if=/dev/zero of="$tmp/alpha/state/filler" bs=64k 2>/dev/null || :
dd if=/dev/zero of="$tmp/alpha/state/filler2" bs=512 2>/dev/null || :
refuses 'journal.*free some space' create h --memory 64M
refuses 'journal.*free some space' migrate g --to beta
serves
rm "$tmp/alpha/state/filler" "$tmp/alpha/state/filler2"
works_again

say "the disk fills in the middle of a job: how it ended is told, and written down when there is room"
fresh_journal alpha
echo "source preflight run disk-full alpha beta" >"$tmp/fault"
refuses 'journal.*free some space' migrate g --to beta
job=$(nova alpha jobs --json | jq -r '.[-1].job')
outcome_is() {
	[ "$(nova alpha job "$job" --json | jq -r .outcome)" = "$1" ] || fail "told: $(nova alpha job "$job" --json)"
	[ "$(nova alpha jobs --running --json)" = "[]" ] || fail "still running: $(nova alpha jobs --running --json)"
}
outcome_is undone
refuses 'journal.*free some space' watch "$job"
serves
rm "$tmp/alpha/state/filler" "$tmp/alpha/state/filler2"
works_again
outcome_is undone

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
g_pid=$(qemu_pid alpha g)

# A daemon that starts on this journal serves g, begins nothing, and leaves the file as it is.
starts_on() { # DAMAGED-JOURNAL WORDS
	stop_daemon alpha KILL
	rm -f "$journal-wal" "$journal-shm"
	cp "$1" "$journal"
	faulty_daemon alpha
	wait_for "g to be attended" 10 guest_is alpha g running
	serves
	refuses "no new work.*$2.*journal renew" create h --memory 64M
	refuses "no new work.*$2.*journal renew" migrate g --to beta
	refuses "no new work.*$2.*journal renew" pause g
	nova alpha doctor >"$tmp/said" 2>&1 || :
	grep -q "$2" "$tmp/said" || fail "doctor says: $(cat "$tmp/said")"
	[ "$(qemu_pid alpha g)" = "$g_pid" ] || fail "the guest's QEMU was touched"
	cmp "$1" "$journal" || fail "the journal was touched"
}

say "the journal is damaged inside"
journal=$tmp/alpha/state/novacron.db
stop_daemon alpha KILL
sqlite3 "$journal" 'pragma wal_checkpoint(truncate)' >/dev/null
cp "$journal" "$tmp/good.db"
cp "$journal" "$tmp/damaged.db"
dd if=/dev/urandom of="$tmp/damaged.db" bs=4096 seek=1 count=5 conv=notrunc 2>/dev/null
starts_on "$tmp/damaged.db" 'novacron.db is damaged'

say "the journal is of a newer version"
cp "$tmp/good.db" "$tmp/newer.db"
sqlite3 "$tmp/newer.db" 'pragma user_version=99'
starts_on "$tmp/newer.db" 'novacron.db was written by a newer version'
nova alpha show g --json | jq -e '.owner != ""' >/dev/null || fail "a journal that can be read says whose g is"

say "mended, all is as it was"
stop_daemon alpha KILL
cp "$tmp/good.db" "$journal"
faulty_daemon alpha
wait_for "g to be attended" 10 guest_is alpha g running
serves
works_again

say "the state directory is read-only, then full, when the daemon starts"
stop_daemon alpha
mount --bind "$tmp/alpha/state" "$tmp/alpha/state" # QEMU has a file open there, through the mount below
cleanup_fn "umount -l '$tmp/alpha/state' 2>/dev/null || :"
mount -o remount,bind,ro "$tmp/alpha/state"
faulty_daemon alpha
wait_for "g to be attended" 10 guest_is alpha g running
serves
refuses 'no new work.*novacron.db' create h --memory 64M
stop_daemon alpha
umount "$tmp/alpha/state"
dd if=/dev/zero of="$tmp/alpha/state/filler" bs=64k 2>/dev/null || :
dd if=/dev/zero of="$tmp/alpha/state/filler2" bs=512 2>/dev/null || :
faulty_daemon alpha
wait_for "g to be attended" 10 guest_is alpha g running
serves
refuses 'journal.*free some space' create h --memory 64M
stop_daemon alpha
rm "$tmp/alpha/state/filler" "$tmp/alpha/state/filler2"
faulty_daemon alpha
wait_for "g to be attended" 10 guest_is alpha g running
works_again

say "the journal is no database: the running guest is found by its process"
dd if=/dev/urandom of="$tmp/garbage.db" bs=4096 count=9 2>/dev/null
starts_on "$tmp/garbage.db" 'novacron.db is damaged'

say "it is renewed, and work goes on"
nova alpha journal renew --json >"$tmp/said"
jq -e '.risk and .next and (.guests == ["g: running"])' "$tmp/said" >/dev/null || fail "renew says: $(cat "$tmp/said")"
cmp "$tmp/garbage.db" "$journal" || fail "the journal was renewed without --yes"
aside=$(nova alpha journal renew --yes --json | jq -r .put_aside)
cmp "$tmp/garbage.db" "$aside" || fail "the damaged journal is not in $aside"
serves
works_again
stop_daemon alpha
faulty_daemon alpha
wait_for "g to be attended" 10 guest_is alpha g running
serves
[ "$(qemu_pid alpha g)" = "$g_pid" ] || fail "the guest's QEMU was touched"
expect_steady_heart g 3000
rm "$tmp/beats-g"
start_heartbeat g
nova alpha migrate g --to beta >/dev/null
runs_only_on g beta 10
stop_proxies
finish
