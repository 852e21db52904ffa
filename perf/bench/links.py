# SPDX-License-Identifier: Apache-2.0
"""links.py - two hosts and the link between them, out of private network namespaces.

A host is a network namespace held open by a sleeping process; it has no name in /run/netns, so nothing is left when its
last process ends. Every process started on a host (and whatever that process starts) lives in its namespace: that is how
the processes of a run are found, metered and in the end killed, even those a daemon started.

loopback is one namespace that plays both hosts; veth is an unshaped pair; 100mbit is a pair with tbf on both ends. Links with
delay, and 1 Gbit/s, go through the emulator perf/linkem. Not here: network cards, and rates the emulator cannot pace.
"""
import os
import signal
import subprocess
import time

SUBNET = "10.213.77"
KILL_PATIENCE_S = 10


class Unavailable(Exception):
    """This link cannot be made on this machine; the text says why."""


class Host:
    """One network namespace. Close it and all of its processes end."""

    def __init__(self, name):
        self.name = name
        self.address = None
        self.device = None
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--", "setpriv", "--pdeathsig", "KILL", "sleep", "infinity"],
            stdin=subprocess.DEVNULL, start_new_session=True)
        self.namespace = self._await_namespace()
        try:
            self.check("ip", "link", "set", "lo", "up")
        except Exception:
            self.close()
            raise

    def _await_namespace(self):
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if self.holder.poll() is not None:
                raise Unavailable("cannot make a network namespace (it takes root)")
            found = os.readlink(f"/proc/{self.holder.pid}/ns/net")
            if found != ours:
                return found
            time.sleep(0.005)
        self.holder.kill()
        raise Unavailable("unshare did not make a network namespace within 5 s")

    def command(self, *argv):
        """The same command, inside. It dies with us."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", "setpriv", "--pdeathsig", "KILL",
                *map(str, argv)]

    def start(self, *argv, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.command(*argv), start_new_session=True, **options)

    def check(self, *argv):
        done = subprocess.run(self.command(*argv), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def pids(self):
        """Processes in this namespace, but for the one that holds it."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/net") == self.namespace:
                    found.append(int(entry))
            except OSError:
                continue  # it ended meanwhile
        return [pid for pid in found if pid != self.holder.pid]

    def sent_bytes(self):
        """What went out of the host's end of the link, from the interface's own counter."""
        with open(f"/proc/{self.holder.pid}/net/dev") as table:
            for line in table:
                device, _, counters = line.partition(":")
                if device.strip() == self.device:
                    return int(counters.split()[8])
        raise RuntimeError(f"{self.name} has no interface {self.device}")

    def kill_all(self):
        """End everything that runs here, however often it starts something anew."""
        deadline = time.monotonic() + KILL_PATIENCE_S
        while time.monotonic() < deadline:
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
                except (ProcessLookupError, ChildProcessError):
                    pass
            time.sleep(0.01)

    def close(self):
        self.kill_all()
        self.holder.kill()
        self.holder.wait()


class Loopback:
    """Both hosts are one: what the machine does without any network between."""

    def __init__(self, name):
        self.name = name
        self.alpha = self.beta = Host("loopback")
        self.alpha.device, self.alpha.address = "lo", "127.0.0.1"

    def hosts(self):
        return [self.alpha]

    def wire_bytes(self):
        return self.alpha.sent_bytes()

    def close(self):
        self.alpha.close()


class Veth:
    """A veth pair, each end shaped by tbf when a rate is given."""

    def __init__(self, name, rate=None, burst="128k"):
        self.name = name
        self.alpha = self.beta = None
        try:
            self.alpha, self.beta = Host("alpha"), Host("beta")
            self.alpha.check("ip", "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns",
                             self.beta.holder.pid)
            for host, number in ((self.alpha, 1), (self.beta, 2)):
                host.device, host.address = "link0", f"{SUBNET}.{number}"
                host.check("ip", "address", "add", f"{host.address}/24", "dev", "link0")
                host.check("ip", "link", "set", "link0", "up")
                if rate:
                    host.check("tc", "qdisc", "add", "dev", "link0", "root", "tbf", "rate", rate, "burst", burst,
                               "latency", "50ms")
        except BaseException:
            self.close()
            raise

    def hosts(self):
        return [self.alpha, self.beta]

    def wire_bytes(self):
        return self.alpha.sent_bytes() + self.beta.sent_bytes()

    def close(self):
        for host in (self.alpha, self.beta):
            if host:
                host.close()


class Emulated:
    """Two hosts and the emulator between them (perf/linkem.c): exact rates, and the delay of a long way."""

    def __init__(self, name, linkem, *keys, control=None):
        self.name = name
        self.emulator = self.alpha = self.beta = None
        try:
            self.alpha, self.beta = Host("alpha"), Host("beta")
            namespaces = [f"/proc/{host.holder.pid}/ns/net" for host in self.hosts()]
            told = ["--control", str(control)] if control else []
            self.emulator = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", linkem, *told, *namespaces, *keys],
                                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                             start_new_session=True)
            if self.emulator.stdout.readline().strip() != "ready":
                raise Unavailable(f"{linkem} did not make the link (it takes root and /dev/net/tun)")
            for host, number in ((self.alpha, 1), (self.beta, 2)):
                host.device, host.address = "link0", f"{SUBNET}.{number}"
                # TCP may fill a long fat pipe.
                host.check("sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 67108864",
                           "net.ipv4.tcp_wmem=4096 65536 67108864")
                host.check("ip", "address", "add", f"{host.address}/24", "dev", "link0")
                host.check("ip", "link", "set", "link0", "up")
        except BaseException:
            self.close()
            raise

    def hosts(self):
        return [self.alpha, self.beta]

    def wire_bytes(self):
        return self.alpha.sent_bytes() + self.beta.sent_bytes()

    def close(self):
        if self.emulator:
            self.emulator.terminate()
            self.emulator.wait()
            self.emulator.stdout.close()
        for host in (self.alpha, self.beta):
            if host:
                host.close()


# By name: what makes the link. A round trip is twice the emulator's delay.
LINKS = {
    "loopback": lambda name, linkem: Loopback(name),
    "veth": lambda name, linkem: Veth(name),
    "100mbit": lambda name, linkem: Veth(name, rate="100mbit"),
    "100mbit-50ms": lambda name, linkem: Emulated(name, linkem, "rate=100mbit", "delay=25ms"),
    "100mbit-150ms": lambda name, linkem: Emulated(name, linkem, "rate=100mbit", "delay=75ms"),
    "1gbit": lambda name, linkem: Emulated(name, linkem, "rate=1gbit"),
    "1gbit-50ms": lambda name, linkem: Emulated(name, linkem, "rate=1gbit", "delay=25ms"),
    "1gbit-150ms": lambda name, linkem: Emulated(name, linkem, "rate=1gbit", "delay=75ms"),
}


def open_link(name, linkem):
    return LINKS[name](name, linkem)
