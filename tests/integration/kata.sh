#!/bin/sh
# The Kata driver. Kata needs KVM, so what is shown here is containerd's real refusal without the shim, and the driver with a
# small real shim of the tests' own (tests/kata-shim), whose task runc runs and whose QMP socket an idle QEMU serves.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
requires qemu-system-x86_64 socat
own_containerd_place "$0"
prepare_alone
make_rootfs
start_runtime containerd
start_daemon alpha

say "without the shim: told by drivers, and by containerd when it is asked"
if ! command -v containerd-shim-kata-v2 >/dev/null; then
	nova alpha drivers --json | jq -e '.[] | select(.name == "kata") | (.found | not) and (.why | test("containerd-shim-kata-v2"))' >/dev/null ||
		fail "$(nova alpha drivers --json)"
	nova alpha import "$tmp/alpha/fs.tar" --driver kata --name bb:1 >/dev/null
	expect_refused 'a virtual machine' create_guest kata bad --network host
	create_guest kata g1 >/dev/null
	expect_refused 'containerd-shim-kata-v2' nova alpha start g1
	guest_is alpha g1 stopped || fail "g1 is $(guest_state alpha g1)"
	nova alpha delete g1 >/dev/null
	nothing_in_containerd
fi

say "with the tests' shim"
mkdir -p "$tmp/shim"
cp "$top/tests/kata-shim" "$tmp/shim/containerd-shim-kata-v2"
chmod +x "$tmp/shim/containerd-shim-kata-v2"
PATH=$tmp/shim:$PATH
export PATH
kill_containerd
start_containerd
stop_daemon alpha
start_daemon alpha
nova alpha drivers --json | jq -e '.[] | select(.name == "kata") | .found and (.verbs.snapshot | test("not supported by kata"))' >/dev/null ||
	fail "$(nova alpha drivers --json)"
nova alpha import "$tmp/alpha/fs.tar" --driver kata --name bb:1 >/dev/null
create_guest kata g1 >/dev/null
nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"
nova alpha stats g1 --json | jq -e '.hypervisor.status == "running" and .hypervisor.memory_bytes == 67108864 and .memory.rss_bytes > 0' >/dev/null ||
	fail "stats: $(nova alpha stats g1 --json)"

say "a monitor that is the shim's"
# As the shim does: connected for as long as the sandbox lives.
socat -u "UNIX-CONNECT:/run/vc/vm/g1/qmp.sock" "OPEN:$tmp/greeting,creat" &
owner=$!
wait_for "the owner is greeted" 5 grep -q QMP "$tmp/greeting"
nova alpha stats g1 --json | jq -e '.hypervisor.why == "the monitor is owned by the shim" and .memory.rss_bytes > 0' >/dev/null ||
	fail "stats: $(nova alpha stats g1 --json)"
kill "$owner"
wait "$owner" || :

say "pause, resume, stop; a container of the other driver is not shown"
nova alpha pause g1 >/dev/null
guest_is alpha g1 paused || fail "g1 is $(guest_state alpha g1)"
nova alpha resume g1 >/dev/null
counts g1 || fail "g1 does not count any more"
create_guest containerd g2 >/dev/null
nova alpha found --driver kata --json | jq -e 'map(.name) == ["g1"]' >/dev/null || fail "$(nova alpha found --driver kata --json)"
nova alpha found --driver containerd --json | jq -e 'map(.name) == ["g2"]' >/dev/null || fail "$(nova alpha found --driver containerd --json)"
outside containerd kill g1
wait_for "the kill is seen" 5 not_running alpha g1
nova alpha start g1 >/dev/null
nova alpha stop g1 --timeout 5s >/dev/null
nova alpha stats g1 --json | jq -e '.hypervisor.why == "it does not run"' >/dev/null || fail "stats: $(nova alpha stats g1 --json)"
nova alpha delete g1 >/dev/null
wait_for "nothing is left of the sandbox" 5 test ! -e /run/vc/vm/g1
finish_alone
