#!/bin/sh
# What a guest's QEMU and qemu-img may do is looked up in /proc, not in their command lines: no new privileges, a seccomp
# filter, no descriptor of the daemon's; directories and sockets are private.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
# It says who it is, tries what it must not, and waits until it was looked at.
mkdir -p "$tmp/tools/bin"
cat >"$tmp/tools/bin/qemu-img" <<END
#!/bin/sh
cat "$tmp/pki/alpha.key" >"$tmp/alpha/image.key" 2>/dev/null
echo \$\$ >"$tmp/alpha/image.pid"
until [ -f "$tmp/alpha/image.go" ]; do :; done
exec qemu-img "\$@"
END
chmod +x "$tmp/tools/bin/qemu-img"
set_option alpha qemu-img "$tmp/tools/bin/qemu-img"
start_daemon alpha
start_daemon beta

expect_line() { # FILE PATTERN
	grep -Eq -- "$2" "$1" || fail "$1 has no \"$2\": $(cat "$1")"
}

say "QEMU"
boot alpha g1 pc 128M "fill=text:10" --vnc socket
pid=$(qemu_pid alpha g1)
cp "/proc/$pid/status" "$tmp/qemu.status"
expect_line "$tmp/qemu.status" '^NoNewPrivs:[[:space:]]1$'
! at_speed || expect_line "$tmp/qemu.status" '^Seccomp:[[:space:]]2$'
for fd in /proc/"$pid"/fd/*; do
	readlink "$fd" || :
done >"$tmp/qemu.fds"
grep -E "novacron\.db|audit|alpha\.key" "$tmp/qemu.fds" && fail "QEMU holds files of the daemon"
# no socket of the daemon's: control socket and listening port
for inode in $(sed -n 's/^socket:\[\([0-9]*\)\]$/\1/p' "$tmp/qemu.fds"); do
	daemon=$(cat "$tmp/alpha.pid")
	for fd in /proc/"$daemon"/fd/*; do
		[ "$(readlink "$fd" 2>/dev/null)" != "socket:[$inode]" ] || fail "QEMU holds a socket of the daemon"
	done
done

say "a screen is a private socket"
ss -Hltnp | grep "pid=$pid," && fail "QEMU listens on TCP"
[ -S "$tmp/alpha/run/guests/g1/vnc.sock" ] || fail "there is no vnc.sock"

say "private directories and sockets"
find "$tmp/alpha/run" "$tmp/alpha/state" -type d ! -perm 0700 >"$tmp/open"
find "$tmp/alpha/run" "$tmp/alpha/state" -type s -perm /0077 >>"$tmp/open"
find "$tmp/alpha/state" -type f -perm /0077 >>"$tmp/open"
[ ! -s "$tmp/open" ] || fail "not private: $(ls -ld $(cat "$tmp/open"))"

say "qemu-img"
mkdir -p "$tmp/alpha/images"
nova alpha create g2 --memory 64M --disk "path=$tmp/alpha/images/g2.qcow2,size=1M" >/dev/null &
creating=$!
wait_for "qemu-img is run" 20 test -s "$tmp/alpha/image.pid"
pid=$(cat "$tmp/alpha/image.pid")
cp "/proc/$pid/status" "$tmp/image.status"
cp "/proc/$pid/limits" "$tmp/image.limits"
for fd in /proc/"$pid"/fd/*; do
	readlink "$fd" || :
done >"$tmp/image.fds"
touch "$tmp/alpha/image.go"
wait "$creating" || fail "g2 was not created"
[ -f "$tmp/alpha/images/g2.qcow2" ] || fail "qemu-img made no disk"
expect_line "$tmp/image.status" '^NoNewPrivs:[[:space:]]1$'
! at_speed || expect_line "$tmp/image.status" '^Seccomp:[[:space:]]2$'
expect_line "$tmp/image.limits" '^Max open files +256 +256 '
expect_line "$tmp/image.limits" '^Max core file size +0 +0 '
grep -E "^socket:|novacron|\.db|\.key" "$tmp/image.fds" && fail "qemu-img holds descriptors of the daemon"
if nova alpha doctor --json | jq -e '.findings[] | select(.check == "landlock" and .severity == "ok")' >/dev/null; then
	[ ! -s "$tmp/alpha/image.key" ] || fail "qemu-img could read the daemon's key"
else
	say "no landlock in this kernel: what qemu-img may read is not tried"
fi
finish
