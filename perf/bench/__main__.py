# SPDX-License-Identifier: Apache-2.0
"""Move the same guest over the same link by QEMU's own migration and by NovaCron, and compare.

    python3 perf/bench [--quick | --wan] [--peers A,B] [--links A,B] [--workloads A,B] [--runs N] [--results FILE]

Every run boots its guest anew, lets it fill its memory, asks it for a checksum, moves it, and asks for the checksum again on
the other side: a run is ok when the migration completed, the guest's heart beats over there, and memory is what it was. One
JSON object a run is appended to FILE; the table has medians and the worst, and ratios to QEMU's own. It takes root (network
namespaces), qemu-system-x86, busybox-static, cpio, gcc, openssl and iproute2.
"""
import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import guest as guests
import report
from links import LINKS, Unavailable, open_link
from meter import Meter, cpu_rate
from peers import PEERS
from qmp import QmpError
from serial import Console, Heartbeat

READY_LIMIT_S = 120
SUM_LIMIT_S = 120
SETTLE_S = 2.0
ALIVE_LIMIT_S = 20


@dataclass(frozen=True)
class Tools:
    source: Path
    build: Path

    @property
    def pki(self):
        return self.source / "tests/pki"

    @property
    def daemon(self):
        return self.build / "tools/novacrond"

    @property
    def client(self):
        return self.build / "tools/novacron"


def checksum(console, tag):
    """The guest's hash of its filled memory; a wrong page found by the guest itself is an error."""
    return console.ask(f"sum {tag}", "WL-SUM", SUM_LIMIT_S, again_s=SUM_LIMIT_S).split()[1:3]


def await_ready(console, guest):
    """The guest answers once its memory is filled."""
    console.ask(f"rate {guest.rate_mib}", "WL-RATE", READY_LIMIT_S)


def await_beats(heartbeat, path, since):
    deadline = time.monotonic() + ALIVE_LIMIT_S
    while time.monotonic() < deadline:
        if heartbeat.count(path, since) >= 20:
            return True
        time.sleep(0.05)
    return False


def daemon(name):
    return name.startswith("novacron")


def qemu(name):
    return name.startswith("qemu-system")


def move(pair, link, guest, limit_s):
    """One migration and all that is measured of it."""
    with contextlib.ExitStack() as stack:
        console = Console(pair.console_path(moved=False))
        stack.callback(console.close)
        heartbeat = Heartbeat(pair.heartbeat_paths())
        stack.callback(heartbeat.close)
        await_ready(console, guest)
        before = checksum(console, "before")
        settled = time.monotonic()
        idle_cores = cpu_rate(link.hosts(), SETTLE_S)
        wire = link.wire_bytes()
        meter = Meter(link.hosts())
        stack.callback(meter.stop)
        began = time.monotonic()
        outcome = pair.migrate(limit_s)
        meter.stop()
        wire = link.wire_bytes() - wire
        alive = outcome.ok and await_beats(heartbeat, pair.destination_heartbeat(), began + outcome.time_s)
        ended = time.monotonic()
        if outcome.ok and not alive:
            outcome.ok, outcome.why = False, f"no heartbeat at the destination within {ALIVE_LIMIT_S} s"
        if outcome.ok:
            after_console = Console(pair.console_path(moved=True))
            stack.callback(after_console.close)
            after = checksum(after_console, "after")
            if before != after:
                outcome.ok, outcome.why = False, f"memory differs: {before} before, {after} after"
        peaks = meter.peaks(daemon)
        return outcome, {
            "time_s": round(outcome.time_s, 3),
            "downtime_ms": outcome.downtime_ms,
            "heartbeat_gap_ms": heartbeat.largest_gap_ms(began, ended),
            "heartbeat_gap_before_ms": heartbeat.largest_gap_ms(settled, began - 0.1),
            "heartbeats_missing": heartbeat.missing(),
            "wire_bytes": wire,
            "cpu_s": meter.cpu_s(),
            "cpu_qemu_s": meter.cpu_s(qemu),
            "cpu_daemon_s": meter.cpu_s(daemon),
            "cpu_idle_s": round(idle_cores * outcome.time_s, 2),
            "cpu_s_per_gib": round(meter.cpu_s() * 1024 / guest.size.touched_mib, 2),
            "peak_rss_bytes": max(peaks, default=None),
            "peak_rss_daemons_bytes": peaks,
            "peak_rss_qemu_bytes": max(meter.peaks(qemu), default=None),
            **outcome.details,
        }


def one_run(peer, link_name, guest, limit_s, tools, keep):
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="nova-bench-"))
        if not keep:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        link = open_link(link_name)
        stack.callback(link.close)
        result = {"peer": peer.name, "link": link_name, "guest": guest.size.name, "workload": guest.workload}
        try:
            pair = peer.boot(link, guest, directory, tools)
            stack.callback(pair.close)
            outcome, figures = move(pair, link, guest, limit_s)
        except (OSError, QmpError, RuntimeError) as error:
            return {**result, "ok": False, "why": str(error), **report.NO_FIGURES}
        return {**result, "ok": outcome.ok, "why": outcome.why, **figures}


def run_all(options, tools):
    results = []
    kernel, initrd, disk = guests.build(tools.source, tools.build / "guest")
    accel = guests.accelerator()
    print(f"guests run by {accel.upper()}, one vCPU", flush=True)
    for link in options.links:
        for workload in options.workloads:
            guest = guests.Guest(guests.SIZES[options.guest], workload, kernel, initrd, disk, accel)
            # Peers take turns, so that a machine that grows slower hits all of them.
            for run in range(options.runs):
                for name in options.peers:
                    result = {**one_run(PEERS[name], link, guest, options.limit, tools, options.keep),
                              "accel": accel, "run": run + 1}
                    results.append(result)
                    report.append(options.results, result)
                    print(report.line(result), flush=True)
    return results


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


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = run_all(options, Tools(options.source, options.build))
    except Unavailable as error:
        sys.exit(f"perf/bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print()
    print(report.table(results))
    if not all(result["ok"] for result in results):
        sys.exit(1)


main()
