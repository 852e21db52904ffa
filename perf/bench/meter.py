# SPDX-License-Identifier: Apache-2.0
"""meter.py - what a migration costs: processor time and memory of every process on the two hosts.

All processes in the hosts' namespaces count: QEMUs, daemons, and what they start meanwhile. They are sampled ten times a
second, since a source's QEMU may be gone when the migration ends: what a process used after its last sample (100 ms at most)
is not seen. The kernel counts processor time in ticks of 10 ms.
"""
import os
import threading
import time

PERIOD_S = 0.1
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_sample(pid):
    """(start time, name, cpu seconds, peak resident bytes), None if it ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        fields = rest.split()
        with open(f"/proc/{pid}/status") as file:
            peak = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")]
    except (OSError, IndexError):
        return None
    return int(fields[19]), name, (int(fields[11]) + int(fields[12])) * TICK_S, peak[0] if peak else 0


class Meter:
    """Runs from its making to stop()."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.first = {}  # (pid, start time) -> cpu seconds before we began
        self.last = {}   # (pid, start time) -> (name, cpu seconds, peak)
        self._sample(born_before=True)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _sample(self, born_before=False):
        for host in self.hosts:
            for pid in host.pids():
                sample = process_sample(pid)
                if not sample:
                    continue
                started, name, cpu_s, peak = sample
                self.first.setdefault((pid, started), cpu_s if born_before else 0.0)
                self.last[(pid, started)] = (name, cpu_s, peak)

    def _run(self):
        while not self.done.wait(PERIOD_S):
            self._sample()

    def stop(self):
        if not self.done.is_set():
            self.done.set()
            self.thread.join()
            self._sample()

    def cpu_s(self, wanted=lambda name: True):
        return round(sum(cpu - self.first[key] for key, (name, cpu, _) in self.last.items() if wanted(name)), 2)

    def peaks(self, wanted):
        """Peak resident bytes of each process with such a name, in the order of their start."""
        keys = sorted((key for key in self.last if wanted(self.last[key][0])), key=lambda key: key[1])
        return [self.last[key][2] for key in keys]


def cpu_rate(hosts, seconds):
    """Cores in use by the hosts' processes, over some seconds of nothing else."""
    meter = Meter(hosts)
    began = time.monotonic()
    time.sleep(seconds)
    meter.stop()
    return meter.cpu_s() / (time.monotonic() - began)
