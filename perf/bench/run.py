# SPDX-License-Identifier: Apache-2.0
"""run.py - one run: a guest is booted, moved, and perhaps moved back, and everything is measured.

A move is ok when the peer says that it completed, the guest's heart beats on the other host, and the guest's checksum of its
memory is what it was before. Whatever happens, the processes, namespaces and files of a run end with it.
"""
import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import report
from links import open_link
from meter import Meter
from qmp import QmpError
from serial import Console, Heartbeat

READY_LIMIT_S = 120
SUM_LIMIT_S = 120
SETTLE_S = 2.0
ALIVE_LIMIT_S = 20
ALIVE_BEATS = 20


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""
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

    @property
    def linkem(self):
        return self.build / "perf/linkem"


@dataclass(frozen=True)
class Plan:
    """What a run does, but for who does it."""
    link: str
    guest: object
    limit_s: float        # of a move
    back_after_s: float   # the guest's stay before it moves back; 0: it does not
    keep: bool            # the directory with the logs


def is_daemon(name):
    return "novacron" in name  # lt-novacrond from a build tree, too


def is_ours(name):
    """The emulator works inside the hosts' namespaces, but is the link."""
    return "linkem" not in name


def is_qemu(name):
    return name.startswith("qemu-system")


def checksum(console, tag):
    """The guest's hash of its filled memory, and how many wrong pages it found by itself."""
    return " ".join(console.ask(f"sum {tag}", "WL-SUM", SUM_LIMIT_S, again_s=SUM_LIMIT_S).split()[1:3])


class Run:
    def __init__(self, peer, plan, tools, stack):
        self.plan = plan
        self.directory = Path(tempfile.mkdtemp(prefix="nova-bench-"))
        if not plan.keep:
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.link = open_link(plan.link, tools.linkem)
        stack.callback(self.link.close)
        self.heartbeat = Heartbeat()
        stack.callback(self.heartbeat.close)
        self.pair = peer.boot(self.link, plan.guest, self.directory, tools)
        stack.callback(self.pair.close)
        self.heartbeat.listen(self.pair.heartbeat_path())
        with self.console() as console:
            # The guest answers once its memory is filled.
            console.ask(f"rate {plan.guest.rate_mib}", "WL-RATE", READY_LIMIT_S)

    def console(self):
        return contextlib.closing(Console(self.pair.console_path()))

    def move(self, name):
        """The figures of one move, with ok and why."""
        with self.console() as console:
            before = checksum(console, f"before-{name}")
        self.pair.prepare()
        settled = time.monotonic()
        time.sleep(SETTLE_S)
        load = round(os.getloadavg()[0], 1)
        wire = self.link.wire_bytes()
        with contextlib.closing(Meter(self.link.hosts())) as meter:
            began = time.monotonic()
            # The destination's socket appears while it moves.
            self.heartbeat.listen(self.pair.heartbeat_path(moved=True))
            outcome = self.pair.migrate(self.plan.limit_s)
        wire = self.link.wire_bytes() - wire
        if outcome.ok:
            outcome.why = self._wrong_after(began + outcome.time_s, before, f"after-{name}")
            outcome.ok = not outcome.why
        peaks = meter.peaks(is_daemon)
        cpu_s = meter.cpu_s(is_ours)
        return {
            "move": name,
            "load": load,
            "ok": outcome.ok,
            "why": outcome.why,
            "time_s": round(outcome.time_s, 3),
            "downtime_ms": outcome.downtime_ms,
            "heartbeat_gap_ms": self.heartbeat.largest_gap_ms(began, began + outcome.time_s + 1),
            "heartbeat_gap_before_ms": self.heartbeat.largest_gap_ms(settled, began - 0.1),
            "heartbeats_missing": self.heartbeat.missing(settled),
            "wire_bytes": wire,
            "cpu_s": cpu_s,
            "cpu_qemu_s": meter.cpu_s(is_qemu),
            "cpu_daemon_s": meter.cpu_s(is_daemon),
            "cpu_guest_s": meter.vcpu_s(),
            "cpu_s_per_gib": round((cpu_s - meter.vcpu_s()) * 1024 / self.plan.guest.size.touched_mib, 2),
            "peak_rss_bytes": max(peaks, default=None),
            "peak_rss_daemons_bytes": peaks,
            "peak_rss_qemu_bytes": max(meter.peaks(is_qemu), default=None),
            **outcome.details,
        }

    def _wrong_after(self, ended, before, tag):
        """What is wrong with the guest over there; empty if nothing is."""
        deadline = time.monotonic() + ALIVE_LIMIT_S
        with self.console() as console:
            while self.heartbeat.count(self.pair.heartbeat_path(), ended) < ALIVE_BEATS:
                console.listen(0.05)
                if time.monotonic() > deadline:
                    return f"no heartbeat over there for {ALIVE_LIMIT_S} s; the guest said {console.last_words()!r}"
            after = checksum(console, tag)
        return "" if after == before else f"memory differs: {before} before, {after} after"


def run(peer, plan, tools):
    """The results of one run: of the first move, and of the one back if there is one."""
    about = {"peer": peer.name, "link": plan.link, "guest": plan.guest.size.name, "workload": plan.guest.workload}
    results = []
    try:
        with contextlib.ExitStack() as stack:
            one = Run(peer, plan, tools, stack)
            results.append({**about, **one.move("first")})
            if plan.back_after_s and results[0]["ok"]:
                time.sleep(plan.back_after_s)
                results.append({**about, **one.move("back")})
    except (OSError, QmpError, RuntimeError) as error:
        move = "back" if results else "first"
        results.append({**about, "move": move, "ok": False, "why": str(error), **report.NO_FIGURES})
    return results
