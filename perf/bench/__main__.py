# SPDX-License-Identifier: Apache-2.0
"""Move the same guest over the same link by QEMU's own migration and by NovaCron, and compare.

    python3 perf/bench [--quick | --wan] [--peers A,B] [--links A,B] [--workloads A,B] [--runs N] [--results FILE]

Every run boots its guest anew, lets it fill its memory, asks it for a checksum, moves it, and asks for the checksum again on
the other side: a run is ok when the migration completed, the guest's heart beats over there, and memory is what it was. One
JSON object a run is appended to FILE; the table has medians and the worst, and ratios to QEMU's own. It takes root (network
namespaces), qemu-system-x86, busybox-static, cpio, gcc, openssl and iproute2.
"""
import argparse
import signal
import sys
from pathlib import Path

import guest as guests
import report
from links import LINKS, Unavailable
from peers import PEERS
from run import Plan, Tools, run


def run_all(options, tools):
    results = []
    kernel, initrd, disk = guests.build(tools.source, tools.build / "guest")
    accel = guests.accelerator()
    print(f"guests run by {accel.upper()}, one vCPU", flush=True)
    for link in options.links:
        for workload in options.workloads:
            guest = guests.Guest(guests.SIZES[options.guest], workload, kernel, initrd, disk, accel)
            plan = Plan(link, guest, options.limit, options.back_after, options.keep)
            # Peers take turns, so that a machine that grows slower hits all of them.
            for number in range(1, options.runs + 1):
                for name in options.peers:
                    for result in run(PEERS[name], plan, tools):
                        result |= {"accel": accel, "run": number}
                        results.append(result)
                        report.append(options.results, result)
                        print(report.line(result), flush=True)
    return results


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What --wan and --quick ask for where the command line does not say.
SUITES = {
    "plain": {"links": ["loopback", "100mbit"], "workloads": ["edits"], "guest": "1g", "runs": 3,
              "peers": list(PEERS), "limit": 180.0},
    "plain-quick": {"guest": "512m", "runs": 1, "peers": ["qemu-tcp", "qemu-multifd-zstd", "novacron"], "limit": 60.0},
    "wan": {"links": ["100mbit", "100mbit-150ms"], "workloads": ["idle", "edits", "text40"], "guest": "1g", "runs": 5,
            "peers": list(PEERS), "limit": 180.0},
    "wan-quick": {"links": ["100mbit-150ms"], "workloads": ["edits"], "guest": "512m", "runs": 1,
                  "peers": ["qemu-tcp", "qemu-multifd-zstd", "novacron"], "limit": 60.0},
}


def names_of(table):
    def parse(text):
        wanted = [word for word in text.split(",") if word]
        for word in wanted:
            if word not in table:
                raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(table)}")
        return wanted
    return parse


def parse_options():
    parser = argparse.ArgumentParser(prog="perf/bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run, small guest, few peers")
    parser.add_argument("--wan", action="store_true", help="long and slow links")
    parser.add_argument("--peers", type=names_of(PEERS))
    parser.add_argument("--links", type=names_of(LINKS))
    parser.add_argument("--workloads", type=names_of(guests.WORKLOADS))
    parser.add_argument("--guest", choices=guests.SIZES)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="give up a migration after this")
    parser.add_argument("--back-after", type=float, default=0, metavar="SECONDS",
                        help="move the guest back after it ran there so long, as a result of its own")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append one JSON object a run")
    parser.add_argument("--source", type=Path, default=Path(__file__).resolve().parents[2], help="source tree")
    parser.add_argument("--build", type=Path, default=Path.cwd(), help="build tree")
    parser.add_argument("--keep", action="store_true", help="leave the runs' directories (logs) below TMPDIR")
    options = parser.parse_args()
    suite = "wan" if options.wan else "plain"
    defaults = {**SUITES[suite], **(SUITES[f"{suite}-quick"] if options.quick else {})}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.source, options.build = options.source.resolve(), options.build.resolve()
    return options


def end_early(number, _frame):
    """Leave through every `with`, so that nothing stays; a second signal does not disturb that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    options = parse_options()
    for number in SIGNALS:
        signal.signal(number, end_early)
    try:
        results = run_all(options, Tools(options.source, options.build))
    except Unavailable as error:
        sys.exit(f"perf/bench: {error}")
    print()
    print(report.table(results))
    if not all(result["ok"] for result in results):
        sys.exit(1)


main()
