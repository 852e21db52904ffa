#!/bin/sh
# kill -9 of dockerd in the middle of each verb: the verb ends with an error that says so, the guest's state follows as
# soon as an engine answers again, and nothing is left behind.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
prepare_alone
make_rootfs
start_runtime docker
# Stops the engine before the row that $tmp/stop-at names, so that it dies in the middle of exactly that.
cat >"$tmp/hook" <<END
#!/bin/sh
[ "\$2 \$4 \$5" = "\$(cat "$tmp/stop-at" 2>/dev/null)" ] && kill -STOP \$(cat "$tmp/dockerd.own") && rm -f "$tmp/stop-at"
exit 0
END
chmod +x "$tmp/hook"
set_alone fault-hook "$tmp/hook"
start_daemon alpha
nova alpha import "$tmp/alpha/fs.tar" --driver docker --name bb:1 >/dev/null

kill_docker() {
	kill -9 "$(cat "$tmp/dockerd.own")" || :
	wait "$(cat "$tmp/dockerd.own")" 2>/dev/null || :
	rm -f "$tmp/dk.pid"
	# Its containerd dies with it; where nobody reaps that, the next dockerd would take it for alive.
	containerd=$(cat "$tmp/dk/exec/containerd/containerd.pid")
	wait_for "containerd has ended with dockerd" 10 ended "$containerd"
	rm -f "$tmp/dk/exec/containerd/containerd.pid"
}

ended() { # PID
	! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null
}

# The engine is stopped first, so that the verb is under way for certain when it dies.
in_the_middle() { # VERB COMMAND...
	say "kill -9 of dockerd during $1"
	shift
	kill -STOP "$(cat "$tmp/dockerd.own")"
	"$@" >"$tmp/out" 2>&1 &
	verb_pid=$!
	wait_for "the verb is under way" 5 job_runs
	kill_docker
	status=0
	wait "$verb_pid" || status=$?
	[ "$status" != 0 ] || fail "the verb succeeded without an engine"
	grep -Eiq 'docker does not answer' "$tmp/out" || fail "nothing about the engine: $(cat "$tmp/out")"
	start_docker
	wait_for "the verb's job has ended" 10 no_job_runs
}

job_runs() {
	[ "$(nova alpha jobs --running --json | jq length)" != 0 ]
}

no_job_runs() {
	[ "$(nova alpha jobs --running --json | jq length)" = 0 ]
}

engine_is_seen() {
	nova alpha found --driver docker >/dev/null
}

in_the_middle create create_guest docker g1
[ -z "$(guest_state alpha g1)" ] || fail "a guest whose creation failed is in the list"
docker_api GET "/containers/json?all=1"
[ "$(jq length "$tmp/dk.answer")" = 0 ] || fail "a container is left: $(cat "$tmp/dk.answer")"

say "kill -9 of dockerd while it makes the container: what it made is found and taken back"
echo "create create run" >"$tmp/stop-at"
create_guest docker g1 >"$tmp/out" 2>&1 &
verb_pid=$!
wait_for "the engine is stopped" 10 test ! -e "$tmp/stop-at"
wait_for "the request is on its way" 5 job_runs
kill_docker
start_docker
! wait "$verb_pid" || fail "the verb succeeded without an engine"
grep -Eiq 'docker does not answer' "$tmp/out" || fail "nothing about the engine: $(cat "$tmp/out")"
[ -z "$(guest_state alpha g1)" ] || fail "a guest whose creation failed is in the list"
docker_api GET "/containers/json?all=1"
[ "$(jq length "$tmp/dk.answer")" = 0 ] || fail "a container is left: $(cat "$tmp/dk.answer")"

create_guest docker g1 >/dev/null
in_the_middle start nova alpha start g1
wait_for "the engine is seen again" 10 engine_is_seen
guest_is alpha g1 running || nova alpha start g1 >/dev/null
counts g1 || fail "g1 does not count"

for verb in pause stop; do
	in_the_middle $verb nova alpha $verb g1
	wait_for "the engine is seen again" 10 engine_is_seen
	# Without live-restore an engine that comes back ends the containers it finds.
	wait_for "g1's state is what the engine says" 10 not_running alpha g1
	nova alpha start g1 >/dev/null
	counts g1 || fail "g1 does not count after $verb"
done

in_the_middle delete nova alpha delete g1 --force
wait_for "the engine is seen again" 10 engine_is_seen
[ -z "$(guest_state alpha g1)" ] || nova alpha delete g1 --force >/dev/null
finish_alone
