#!/bin/sh
# novacron --host: by certificate, an admin moves a guest and follows it from afar, an operator and a viewer see what is
# theirs, and a peer's, a stranger's or a forged certificate gets nothing.
. "${srcdir:-.}/tests/lib.sh"
prepare_pair
"$top/tests/pki" "$tmp/pki" carol alice bob eve stranger
"$top/tests/pki" --ca other "$tmp/pki" mallory
for host in alpha beta; do
	set_option $host admins cert:carol
	set_option $host operators cert:alice
	set_option $host operators cert:bob
	set_option $host viewers cert:eve
done
start_daemon alpha
start_daemon beta

as() { # NAME COMMAND...
	name=$1
	shift
	"$NOVACRON" --host "alpha=$address:$(cat "$tmp/alpha.port")" --cert "$tmp/pki/$name.pem" --key "$tmp/pki/$name.key" \
		--ca "$tmp/pki/ca.pem" "$@"
}

refused() { # WORDS NAME COMMAND...
	words=$1
	shift
	as "$@" >"$tmp/out" 2>&1 && fail "$* was allowed: $(cat "$tmp/out")"
	grep -Eq -- "$words" "$tmp/out" || fail "$*: nothing about \"$words\" in: $(cat "$tmp/out")"
}

say "everybody sees their own"
as alice create hers --memory 64M >/dev/null
[ "$(as alice list --json | jq -r '.[].owner')" = alice ] || fail "alice does not see her guest"
[ "$(as bob list --json)" = "[]" ] || fail "bob sees alice's guest"
refused "there is no guest 'hers'" bob show hers
refused "takes the role operator" eve create mine
[ "$(as carol list --json | jq length)" = 1 ] || fail "an admin does not see all"

say "who has no role gets nothing"
refused "takes the role viewer" beta list
refused "no configured peer or user" stranger list
refused "certificate|verif|link|TLS" mallory list

say "an admin moves a guest and follows it, with a configuration file and the environment"
boot alpha g1 pc 128M "fill=text:10,rand:10"
cat >"$tmp/client.conf" <<END
cert = $tmp/pki/carol.pem
key = $tmp/pki/carol.key
ca = $tmp/pki/ca.pem
[peer near]
address = $address:$(cat "$tmp/alpha.port")
certificate-name = alpha
END
NOVACRON_CONFIG=$tmp/client.conf NOVACRON_HOST=near "$NOVACRON" migrate g1 --to beta --json >"$tmp/events" || fail "the move failed"
for event in JOB_STARTED JOB_ENDED; do
	grep -q "$event" "$tmp/events" || fail "no $event among: $(cat "$tmp/events")"
done
guest_is beta g1 running || fail "g1 does not run on beta"
job=$(as carol jobs --json | jq -r '.[] | select(.kind == "migrate") | .job')
refused "there is no job" bob watch "$job"
as carol watch "$job" >/dev/null || fail "an ended job cannot be looked at"
refused "takes the role admin" alice audit show
as carol audit show --json | jq -e '.[] | select(.command == "migrate" and .who == "carol" and (.from | startswith("tls ")))' \
	>/dev/null || fail "the audit log does not know who moved it"
finish
