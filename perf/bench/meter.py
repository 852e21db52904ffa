# SPDX-License-Identifier: Apache-2.0
"""meter.py - what a migration costs: processor time and memory of every process on the two hosts.

All processes in the hosts' namespaces count: QEMUs, daemons, and what they start meanwhile. They are sampled ten times a
second, since a source's QEMU may be gone when the migration ends: what a process used after its last sample (100 ms at most)
is not seen. The kernel counts processor time in ticks of 10 ms. A QEMU's vCPU threads, known by their names, are also counted
apart: that is the guest's own work.
"""
import os
import threading
from dataclasses import dataclass

PERIOD_S = 0.1
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
VCPU = "CPU "  # how QEMU names those threads with debug-threads=on


@dataclass
class Use:
    """Of one process, so far."""
    name: str
    started: int  # in ticks since the machine booted: with the pid, what tells processes apart
    cpu_s: float
    vcpu_s: float
    peak_bytes: int  # resident


def read_stat(path):
    """(name, fields after it) of a stat file: the name may hold anything."""
    with open(path) as file:
        name, _, rest = file.read().partition("(")[2].rpartition(")")
    return name, rest.split()


def cpu_of(fields):
    return (int(fields[11]) + int(fields[12])) * TICK_S


def vcpu_s(pid):
    threads = (read_stat(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task"))
    return sum(cpu_of(fields) for name, fields in threads if name.startswith(VCPU))


def use_of(pid):
    """None if it ended."""
    try:
        name, fields = read_stat(f"/proc/{pid}/stat")
        with open(f"/proc/{pid}/status") as file:
            peak = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")]
        return Use(name, int(fields[19]), cpu_of(fields), vcpu_s(pid), peak[0] if peak else 0)
    except (OSError, IndexError):
        return None


class Meter:
    """Runs from its making to close(), and is read after."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.first = {}  # (pid, started) -> what it had used before we began
        self.last = {}
        self._sample(self.first)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _sample(self, uses):
        for host in self.hosts:
            for pid in host.pids():
                use = use_of(pid)
                if not use:
                    continue
                # A process that is ending has lost its threads and its memory, not what it had used.
                before = uses.get((pid, use.started), use)
                use.vcpu_s = max(use.vcpu_s, before.vcpu_s)
                use.peak_bytes = max(use.peak_bytes, before.peak_bytes)
                uses[(pid, use.started)] = use

    def _run(self):
        while not self.done.wait(PERIOD_S):
            self._sample(self.last)

    def close(self):
        self.done.set()
        self.thread.join()
        self._sample(self.last)

    def _spent(self, field, wanted):
        return round(sum(getattr(use, field) - getattr(self.first.get(key), field, 0)
                         for key, use in self.last.items() if wanted(use.name)), 2)

    def cpu_s(self, wanted):
        return self._spent("cpu_s", wanted)

    def vcpu_s(self):
        return self._spent("vcpu_s", lambda name: True)

    def peaks(self, wanted):
        """Peak resident bytes of each process with such a name, in the order of their start."""
        uses = sorted((use for use in self.last.values() if wanted(use.name)), key=lambda use: use.started)
        return [use.peak_bytes for use in uses]
