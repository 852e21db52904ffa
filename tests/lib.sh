# lib.sh - for tests that run the real daemons, the real command line and real guests. Source it first:
#	. "${srcdir:-.}/tests/lib.sh"
# It makes a private directory ($tmp), ends every process the test started, and turns a test that leaves something
# behind into a failure. Exit status: 0 passed, 1 failed, 77 skipped (a command is missing).
#
# From make (see tests/integration/local.mk) or by hand: NOVACRON, NOVACROND, NOVA_TOOLS (heartbeat, console,
# tcp_proxy, free_port), NOVA_GUEST (vmlinuz, initrd). NOVA_KEEP=1 keeps $tmp. What a sanitizer or valgrind (NOVA_MEMCHECK=1)
# says of any of our processes, also of one that was killed later, fails the test.
# Hosts are called alpha and beta. No test sleeps: wait_for polls a condition against a deadline.
set -eu
top=$(cd "${srcdir:-.}" && pwd)
build=$(cd "${builddir:-.}" && pwd)
NOVACRON=${NOVACRON:-$build/tools/novacron}
NOVACROND=${NOVACROND:-$build/tools/novacrond}
NOVA_TOOLS=${NOVA_TOOLS:-$build/tests}
NOVA_GUEST=${NOVA_GUEST:-$build/guest}
tmp=$(mktemp -d /tmp/nova.XXXXXX)
reports=$tmp/reports
cleanups=
mkdir "$reports"
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$reports/asan"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$reports/ubsan:print_stacktrace=1"
if [ -n "${NOVA_MEMCHECK:-}" ]; then
	export NOVA_BUILD="$build" NOVA_REPORTS="$reports" NOVA_MEMCHECKED="$NOVACROND"
	NOVACROND=$top/tests/memcheck
	NOVA_PATIENCE=${NOVA_PATIENCE:-8}
fi

# False under valgrind: a host that is slower than its guest sends more, later, and at no rate of its own choice, so that rates and
# shares of bytes say nothing; and no filter of system calls can be set there. Everything else is asked all the same.
at_speed() {
	[ -z "${NOVA_MEMCHECK:-}" ]
}

# ---- ends -----------------------------------------------------------------------------------------

say() {
	printf '%s %s\n' "$(date +%T.%3N)" "$*" >&2
}

fail() { # TEXT
	say "FAILED: $*"
	exit 1
}

requires() { # COMMAND...
	for command; do
		command -v "$command" >/dev/null 2>&1 || { say "skipped: $command is missing"; exit 77; }
	done
}

# Run at the end, newest first, whatever happened.
cleanup_fn() { # COMMAND...
	cleanups="$*
$cleanups"
}

# Processes that have our private directory in their arguments: nobody else's have. (The pattern comes by stdin, so that
# grep is not one of them.)
own_pids() {
	echo "$tmp/" | grep -laF -f - /proc/[0-9]*/cmdline 2>/dev/null | sed 's|/proc/\([0-9]*\)/.*|\1|' || :
}

kill_own() {
	for signal in TERM KILL; do
		pids=$(own_pids)
		[ -z "$pids" ] || kill -"$signal" $pids 2>/dev/null || :
		try 3 no_own_pids && return 0
	done
}

no_own_pids() {
	[ -z "$(own_pids)" ]
}

show_logs() {
	for log in "$tmp"/*.log "$tmp"/*/state/guests/*/qemu.log; do
		[ -s "$log" ] || continue
		printf '%s\n' "--- ${log#"$tmp/"}"
		tail -n 30 "$log"
	done >&2
}

at_exit() {
	status=$?
	trap - EXIT
	set +e
	printf '%s' "$cleanups" >"$tmp/cleanups"
	while read -r line; do
		eval "$line"
	done <"$tmp/cleanups"
	[ "$status" = 0 ] || [ "$status" = 77 ] || show_logs
	kill_own
	for report in "$reports"/*; do
		[ -s "$report" ] && grep -qv '^--' "$report" || continue # valgrind's own: a call that it does not know fails, as on an old kernel
		say "a memory checker's report: ${report##*/}"
		head -n 100 "$report" >&2
		status=1
	done
	[ -n "${NOVA_KEEP:-}" ] || rm -rf "$tmp"
	exit "$status"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

# ---- waiting --------------------------------------------------------------------------------------

# Since the machine started: the wall clock may be set while a test runs.
now_ms() {
	read -r uptime _ </proc/uptime
	echo "${uptime%.*}${uptime#*.}0"
}

# Poll until the command succeeds; status 1 when SECONDS have passed (NOVA_PATIENCE times as many, on a busy machine).
try() { # SECONDS COMMAND...
	try_until=$(($(now_ms) + $1 * 1000 * ${NOVA_PATIENCE:-1}))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_ms)" -lt "$try_until" ] || return 1
		sleep 0.05
	done
}

wait_for() { # DESCRIPTION SECONDS COMMAND...
	wait_text=$1 wait_s=$2
	shift 2
	try "$wait_s" "$@" || fail "$wait_text: not within $wait_s s"
}

# ---- hosts ----------------------------------------------------------------------------------------

# An address of our own in 127.0.0.0/8, by our process id: what is free there stays free.
own_address() {
	echo "127.$(($$ >> 16 & 255)).$(($$ >> 8 & 255)).$(($$ & 255))"
}

ready_line() { # HOST KEY: what the daemon said when it was ready
	jq -r ".$2" <"$tmp/$1.ready"
}

# Start (again) a daemon with its own directories; prepare_host has written its options.
start_daemon() { # HOST [OPTION...]
	host=$1
	shift
	: >"$tmp/$host.ready"
	"$NOVACROND" --config "$tmp/$host.conf" --ready-fd 3 "$@" 3>"$tmp/$host.ready" >>"$tmp/$host.log" 2>&1 &
	echo $! >"$tmp/$host.pid"
	wait_for "daemon $host is ready" 15 ready_or_dead "$host"
	ready_line "$host" control >/dev/null || fail "daemon $host did not start"
}

ready_or_dead() {
	[ -s "$tmp/$1.ready" ] || ! kill -0 "$(cat "$tmp/$1.pid")" 2>/dev/null
}

gone() { # PID
	! kill -0 "$1" 2>/dev/null
}

# End a daemon; its guests run on.
stop_daemon() { # HOST [SIGNAL]
	pid=$(cat "$tmp/$1.pid")
	kill -"${2:-TERM}" "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
}

write_config() { # HOST PEER PEER-ADDRESS
	mkdir -p "$tmp/$1" "$tmp/shared"
	cat >"$tmp/$1.conf" <<-END
	name = $1
	state-dir = $tmp/$1/state
	runtime-dir = $tmp/$1/run
	listen = $address:$(cat "$tmp/$1.port")
	ca = $tmp/pki/ca.pem
	cert = $tmp/pki/$1.pem
	key = $tmp/pki/$1.key
	roots = $tmp/$1
	roots = $tmp/shared
	roots = $NOVA_GUEST
	[peer $2]
	address = $3
	END
}

# alpha and beta know each other, but do not run yet: tests may change $tmp/HOST.conf first.
prepare_pair() {
	requires jq openssl qemu-system-x86_64 sqlite3 ss
	address=$(own_address)
	"$top/tests/pki" "$tmp/pki" alpha beta
	for host in alpha beta; do
		"$NOVA_TOOLS/free_port" "$address" >"$tmp/$host.port"
	done
	write_config alpha beta "$address:$(cat "$tmp/beta.port")"
	write_config beta alpha "$address:$(cat "$tmp/alpha.port")"
}

# Options are the lines before the first section.
set_option() { # HOST NAME VALUE
	sed -i "0,/^\[peer/s|^\[peer|$2 = $3\n&|" "$tmp/$1.conf"
}

# Put a proxy between alpha and beta, both ways of it (beta is dialled through it); see tests/tcp_proxy.c. Call it before
# alpha is started.
start_proxy() {
	"$NOVA_TOOLS/tcp_proxy" "$address" "$address:$(cat "$tmp/beta.port")" "$tmp/proxy.fifo" >"$tmp/proxy.port" 2>"$tmp/proxy.log" &
	echo $! >>"$tmp/helpers"
	wait_for "the proxy" 5 test -s "$tmp/proxy.port"
	write_config alpha beta "$address:$(cat "$tmp/proxy.port")"
	dialled_port=$(cat "$tmp/proxy.port")
}

proxy() { # WORD
	echo "$1" >"$tmp/proxy.fifo"
}

start_pair() { # [OPTION...] for both
	prepare_pair
	start_daemon alpha "$@"
	start_daemon beta "$@"
}

nova() { # HOST COMMAND...
	control=$tmp/$1/run/control.sock
	shift
	"$NOVACRON" --socket "$control" "$@"
}

# ---- guests ---------------------------------------------------------------------------------------

socket_of() { # HOST GUEST PORT
	echo "$tmp/$1/run/guests/$2/serial$3.sock"
}

# Create and start a guest of ours, and wait until its memory is filled.
boot() { # HOST GUEST MACHINE MEMORY WORKLOAD [OPTION...]
	boot_host=$1 boot_guest=$2 machine=$3 memory=$4 workload=$5
	shift 5
	# A daemon under valgrind does not keep up with it otherwise.
	at_speed || workload=$(echo "$workload" | sed -E 's/(dirty=(verify|edit8):[0-9]+:)([0-9]+)/\10.\3/')
	nova "$boot_host" create "$boot_guest" --machine "$machine" --memory "$memory" --kernel "$NOVA_GUEST/vmlinuz" \
		--initrd "${guest_initrd:-$NOVA_GUEST/initrd}" \
		--cmdline "console=ttyS0 loglevel=5 panic=0 print-fatal-signals=1 nokaslr mitigations=off $workload" "$@" >/dev/null
	nova "$boot_host" start "$boot_guest" >/dev/null
	start_console "$boot_guest"
	guest_sum "$boot_host" "$boot_guest" >/dev/null
}

# All that the guest says is written down in $tmp/console-GUEST.log, on whichever host.
start_console() { # GUEST
	"$NOVA_TOOLS/console" "$tmp/console-$1.log" "$tmp/console-$1.fifo" \
		"$(socket_of alpha "$1" 0)" "$(socket_of beta "$1" 0)" &
	echo $! >>"$tmp/helpers"
	wait_for "the console of $1" 5 test -p "$tmp/console-$1.fifo"
}

index_of() { # HOST
	case $1 in alpha) echo 0 ;; *) echo 1 ;; esac
}

console_since() { # GUEST OFFSET PATTERN
	tail -c "+$2" "$tmp/console-$1.log" 2>/dev/null | grep -E -m 1 -- "$3"
}

# Say a line to the guest, print the line that answers it: the next that matches PATTERN (extended regular expression).
# It is said again every 5 s: a guest that boots throws input away.
guest_console() { # HOST GUEST LINE PATTERN [SECONDS]
	console_from=$(($(wc -c <"$tmp/console-$2.log") + 1))
	console_until=$(($(now_ms) + ${5:-90} * 1000 * ${NOVA_PATIENCE:-1}))
	while [ "$(now_ms)" -lt "$console_until" ]; do
		echo "$(index_of "$1") $3" >"$tmp/console-$2.fifo"
		if try 5 console_since "$2" "$console_from" "$4"; then
			console_since "$2" "$console_from" "$4"
			return 0
		fi
		! grep -q 'end Kernel panic' "$tmp/console-$2.log" || fail "the kernel of $2 panicked: no answer from $2 on $1 to \"$3\""
	done
	fail "no answer from $2 on $1 to \"$3\""
}

# "HASH bad=N" of the guest's filled memory. A tag of its own keeps a late answer from being taken for this one.
guest_sum() { # HOST GUEST
	tag=t$(now_ms)
	guest_console "$1" "$2" "sum $tag" "WL-SUM .* $tag\$" | sed "s/^.*WL-SUM \(.*\) $tag\$/\1/"
}

guest_state() { # HOST GUEST: nothing if it is not there
	nova "$1" list --json | jq -r --arg name "$2" '.[] | select(.name == $name) | .state'
}

guest_is() { # HOST GUEST STATE
	[ "$(guest_state "$1" "$2")" = "$3" ]
}

not_running() { # HOST GUEST
	case $(guest_state "$1" "$2") in stopped | failed | '') ;; *) return 1 ;; esac
}

qemu_pid() { # HOST GUEST
	for pid in $(own_pids); do
		case $(tr "\0" " " 2>/dev/null <"/proc/$pid/cmdline") in
		*qemu-system*"$tmp/$1/run/guests/$2/"*) echo "$pid" ;;
		esac
	done
}

# Watch the guest's heartbeat on both hosts until heartbeat_report.
start_heartbeat() { # GUEST
	"$NOVA_TOOLS/heartbeat" "$tmp/beats-$1" "$(socket_of alpha "$1" 1)" "$(socket_of beta "$1" 1)" >"$tmp/beats-$1.json" &
	echo $! | tee -a "$tmp/helpers" >"$tmp/beats-$1.pid"
	wait_for "a first heartbeat of $1" 30 test -s "$tmp/beats-$1"
}

# End the watch and print its JSON report (see tests/guest/heartbeat.c).
heartbeat_report() { # GUEST
	kill "$(cat "$tmp/beats-$1.pid")"
	wait "$(cat "$tmp/beats-$1.pid")"
	cat "$tmp/beats-$1.json"
}

beats_seen() { # GUEST HOST: so far
	grep -c " $(index_of "$2")\$" "$tmp/beats-$1" || :
}

more_beats() { # GUEST HOST COUNT
	[ "$(beats_seen "$1" "$2")" -gt "$3" ]
}

# The guest runs on this host, and on no other: its heart beats here again, and over there it does not.
runs_only_on() { # GUEST HOST SECONDS
	case $2 in alpha) other=beta ;; *) other=alpha ;; esac
	beats_before=$(beats_seen "$1" "$2")
	wait_for "$1 runs on $2" "$3" more_beats "$1" "$2" $((beats_before + 10))
	elsewhere=$(beats_seen "$1" "$other")
	wait_for "$1 runs on $2" 5 more_beats "$1" "$2" $((beats_before + 40))
	[ "$(beats_seen "$1" "$other")" = "$elsewhere" ] || fail "$1 runs on $2 and on $other"
}

# ---- migrations -----------------------------------------------------------------------------------

other_host() {
	case $1 in alpha) echo beta ;; *) echo alpha ;; esac
}

# Begin to move a guest to the other host; prints the job.
start_migration() { # HOST GUEST [OPTION...]
	mig_host=$1 mig_guest=$2
	shift 2
	nova "$mig_host" migrate "$mig_guest" --to "$(other_host "$mig_host")" --detach --json "$@" | jq -r .job
}

job_field() { # HOST JOB JQ-PATH
	nova "$1" job "$2" --json | jq -r "$3"
}

job_ended() { # HOST JOB
	[ "$(job_field "$1" "$2" .running)" = false ]
}

# Wait for the end of a job and check how it ended.
expect_outcome() { # HOST JOB OUTCOME SECONDS
	wait_for "job $2 ends" "$4" job_ended "$1" "$2"
	found=$(job_field "$1" "$2" .outcome)
	[ "$found" = "$3" ] || fail "job $2 ended $found, not $3: $(job_field "$1" "$2" .report.error.text)"
}

# The job failed, and what it says names the reason.
expect_error() { # HOST JOB WORDS (an extended regular expression)
	text=$(job_field "$1" "$2" .report.error.text)
	echo "$text" | grep -Eiq -- "$3" || fail "job $2 says \"$text\", nothing about \"$3\""
}

# Bytes that a host has sent to the other over connections that live now, TLS included.
wire_bytes() { # HOST
	ss -Htin state established dst "$address" dport = ":${dialled_port:-$(cat "$tmp/$(other_host "$1").port")}" |
		sed -n 's/.*bytes_sent:\([0-9]*\).*/\1/p' | awk '{ sum += $1 } END { print sum + 0 }'
}

has_streamed() { # HOST MIB
	[ "$(wire_bytes "$1")" -gt $(($2 << 20)) ]
}

# Move the guest to the other host and wait until it runs there; the job's report goes to $tmp/report.
move() { # HOST GUEST [OPTION...]
	move_host=$1 move_guest=$2
	job=$(start_migration "$@")
	expect_outcome "$move_host" "$job" completed 100
	job_field "$move_host" "$job" .report >"$tmp/report"
	destination=$(other_host "$move_host")
	guest_is "$destination" "$move_guest" running || fail "$move_guest is not running on $destination"
	wait_for "$move_host has let go of $move_guest" 5 no_trace_of "$move_host" "$move_guest"
}

# Move it, and see that its memory is what it was and that no heartbeat was lost.
move_checked() { # HOST GUEST [OPTION...]
	before=$(guest_sum "$1" "$2")
	move "$@"
	after=$(guest_sum "$(other_host "$1")" "$2")
	[ "$before" = "$after" ] || fail "memory changed on the way: $before, then $after"
	case $after in *" bad=0") ;; *) fail "the guest found wrong pages: $after" ;; esac
}

expect_steady_heart() { # GUEST MOST-MS: no beat lost, none twice, no silence longer than this
	heartbeat_report "$1" >"$tmp/beats"
	say "heartbeat: $(cat "$tmp/beats")"
	jq -e ".missing == 0 and .duplicated == 0 and .max_gap_ms < $2" <"$tmp/beats" >/dev/null ||
		fail "the heartbeat was not steady (silence of at most $2 ms allowed): $(cat "$tmp/beats")"
}

# ---- what must not stay ---------------------------------------------------------------------------

# Nothing of the guest is left on the host: no process, no socket, no directory, not in the list.
no_trace_of() { # HOST GUEST
	[ -z "$(qemu_pid "$1" "$2")" ] && [ ! -e "$tmp/$1/run/guests/$2" ] && [ -z "$(guest_state "$1" "$2")" ]
}

# What hosts may leave outside of our directory is found by the directory's name or by our own address. Mounts that the
# test made itself are in $tmp/mounts.
leftovers() {
	for pid in $(own_pids); do
		echo "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-200)"
	done
	find "$tmp" -type s | sed 's/^/socket /'
	find "$tmp"/*/run/guests "$tmp"/*/state/guests -mindepth 1 2>/dev/null | sed 's/^/file /' || :
	touch "$tmp/mounts"
	awk -v top="$tmp/" 'index($2, top) == 1 { print $2 }' /proc/mounts | grep -vxF -f "$tmp/mounts" | sed 's/^/mount /' || :
	[ -z "${address:-}" ] || ss -Hltn src "$address" | sed 's/^/listening port /'
	find /sys/fs/cgroup -type d -name "*${tmp##*/}*" 2>/dev/null | sed 's/^/cgroup /' || :
	ip netns list 2>/dev/null | grep -F "${tmp##*/}" | sed 's/^/namespace /' || :
	ip -o link show 2>/dev/null | grep -F "${tmp##*/}" | sed 's/^/interface /' || :
	journal_rows
}

# Of guests, and of jobs that have not ended, in the journals of daemons that are down.
journal_rows() {
	for journal in "$tmp"/*/state/novacron.db; do
		[ -e "$journal" ] || continue
		sqlite3 "$journal" "select 'guest in the journal: ' || name from guests; select 'open job in the journal: ' ||
			number || ' ' || kind || ' ' || coalesce(guest, '') || ' at ' || coalesce(step, '') from jobs where ended_ms = 0"
	done
}

leak_check() {
	left=$(leftovers)
	[ -z "$left" ] || fail "the test left something behind:
$left"
}

# The end of a test that went well: take everything down the way an operator would, then look for leftovers.
finish() {
	for host in alpha beta; do
		for guest in $(nova "$host" list --json | jq -r '.[].name'); do
			nova "$host" delete "$guest" --force >/dev/null
		done
	done
	for pid in $(cat "$tmp/helpers" 2>/dev/null); do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	stop_daemon alpha
	stop_daemon beta
	leak_check
}
