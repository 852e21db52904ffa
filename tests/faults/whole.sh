#!/bin/sh
# whole.sh [SWEEP...]: sweep.sh and replication.sh, or those that are named, to their ends. A pair that fails is named, its
# logs are kept, and the sweep goes on after it with new hosts. RECORD=FILE holds what has been run: with the same file an interrupted sweep goes on, and a line that is taken
# out is run again; without, all is run and written down in ./faults.record. The last lines name the pairs that failed
# and count.
set -u
record=${RECORD:-faults.record}
logs=${FAULT_LOGS:-faults.logs}
[ -n "${RECORD:-}" ] || : >"$record"
touch "$record"
mkdir -p "$logs"
export RECORD="$record"

failures() {
	grep '^failed' "$record"
}

whole() { # SWEEP
	while [ -n "$(LIST=1 sh "$1")" ]; do
		before=$(wc -l <"$record")
		sh "$1" 2>&1 | tee "$logs/now"
		[ "$(wc -l <"$record")" -gt "$before" ] || exit 1 # it cannot even begin
		case $(tail -n 1 "$record") in failed*) mv "$logs/now" "$logs/$(failures | wc -l).log" ;; esac
	done
}

for sweep in ${*:-sweep.sh replication.sh}; do
	whole "${srcdir:-.}/tests/faults/$sweep"
done
failures
echo "$(wc -l <"$record") pairs of row and fault: $(grep -c '^held' "$record") held, $(grep -c '^failed' "$record") failed"
! failures >/dev/null
