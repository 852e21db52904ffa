#!/bin/sh
# Who may talk to a daemon: wrong authority, wrong name, expired certificate, plaintext and garbage on the port are
# refused and logged, and nothing else is disturbed: a migration that runs meanwhile completes.
rand_mib=120
. "${srcdir:-.}/tests/integration/slow.inc"
prepare_pair
"$top/tests/pki" --ca other "$tmp/pki" mallory
"$top/tests/pki" "$tmp/pki" gamma
"$top/tests/pki" --expired "$tmp/pki" late
start_daemon alpha
start_daemon beta
boot_slow
begin_slow_move

beta_port=$(cat "$tmp/beta.port")
log_lines() {
	wc -l <"$tmp/beta.log"
}

# Something comes to beta's port; beta says so in its log, in these words.
expect_logged() { # WHAT WORDS COMMAND...
	what=$1 words=$2 lines=$(log_lines)
	shift 2
	"$@" >"$tmp/intruder.out" 2>&1 || :
	wait_for "beta logs the $what" 10 logged_since "$lines" "$words"
}

logged_since() { # LINES WORDS
	tail -n +"$(($1 + 1))" "$tmp/beta.log" | grep -Eiq -- "$2"
}

hello_with() { # CERTIFICATE
	openssl s_client -connect "$address:$beta_port" -tls1_3 -CAfile "$tmp/pki/ca.pem" -cert "$tmp/pki/$1.pem" \
		-key "$tmp/pki/$1.key" -ign_eof </dev/null
}

plaintext() {
	printf 'GET / HTTP/1.0\r\n\r\n' | socat -t 3 - "TCP:$address:$beta_port"
}

garbage() {
	head -c 200000 /dev/urandom | socat -t 3 - "TCP:$address:$beta_port"
}

expect_logged "unknown authority" 'certificate|verify|issuer' hello_with mallory
expect_logged "unknown name" 'gamma|name|peer' hello_with gamma
expect_logged "expired certificate" 'expired' hello_with late
expect_logged "plaintext client" 'tls|ssl|handshake' plaintext
expect_logged "garbage" 'tls|ssl|handshake' garbage

nova alpha bandwidth "$job" 0 >/dev/null
expect_outcome alpha "$job" completed 60
runs_only_on g1 beta 5

say "a daemon whose own certificate is not the one its peer expects"
for name in gamma late mallory; do
	cp "$tmp/alpha.conf" "$tmp/alpha.conf.good"
	sed -i "s|/alpha\.pem|/$name.pem|; s|/alpha\.key|/$name.key|" "$tmp/alpha.conf"
	stop_daemon alpha
	start_daemon alpha
	cp "$tmp/alpha.conf.good" "$tmp/alpha.conf"
	nova beta migrate g1 --to alpha >"$tmp/out" 2>&1 && fail "the guest went to a host with the certificate $name"
	grep -Eiq 'certificate|name|verif|expired|tls' "$tmp/out" || fail "no word about the certificate: $(cat "$tmp/out")"
	guest_is beta g1 running || fail "g1 does not run on beta"
done
stop_daemon alpha
start_daemon alpha
move beta g1
finish
