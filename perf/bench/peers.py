# SPDX-License-Identifier: Apache-2.0
"""peers.py - who moves the guest: QEMU's own migration in four forms, and NovaCron.

A peer boots the guest on the link's first host, says where its serial ports will be heard on either host, and moves it. QEMU
keeps its own choices (300 ms of downtime) but for the bandwidth, which is left to the link. The destination of QEMU's own
migration is started before the clock runs, ours by the daemon while it runs. The limit ends what does not converge.
"""
import json
import os
import subprocess
import time
from dataclasses import dataclass, field

from qmp import Qmp

POLL_S = 0.05
PORT = 4444  # of a namespace nobody else is in
DOWNTIME_MS = 300
CANCEL_LIMIT_S = 30


@dataclass
class Outcome:
    ok: bool
    why: str = ""
    time_s: float = 0.0
    downtime_ms: float | None = None
    details: dict = field(default_factory=dict)


# ---- QEMU's own ---------------------------------------------------------------------------------------------

class Qemu:
    """One QEMU on one host: it boots the guest, or waits for it."""

    def __init__(self, name, host, guest, directory, incoming):
        self.name, self.directory = name, directory
        argv = ["qemu-system-x86_64", "-name", f"{name},debug-threads=on", "-nodefaults", "-no-user-config", "-display", "none",
                "-M", f"pc,accel={guest.accel}", "-cpu", "host" if guest.accel == "kvm" else "max",
                "-m", f"{guest.size.memory_mib}M", "-smp", "1", "-kernel", guest.kernel, "-initrd", guest.initrd,
                "-append", guest.cmdline(), "-qmp", f"unix:{self.path('qmp')},server=on,wait=off",
                "-blockdev", f"driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename={guest.disk}",
                "-device", "virtio-blk-pci,drive=disk0", "-device", "virtio-balloon-pci"]
        for port in ("serial0", "serial1"):
            argv += ["-chardev", f"socket,id={port},path={self.path(port)},server=on,wait=off",
                     "-serial", f"chardev:{port}"]
        with open(directory / f"{name}.log", "w") as log:
            self.process = host.start(*argv, *(("-incoming", "defer") if incoming else ()), stdout=log, stderr=log)
        self.qmp = Qmp(self.path("qmp"))

    def path(self, what):
        return self.directory / f"{self.name}-{what}.sock"

    def use_certificates(self, pki, host, role):
        """QEMU wants a directory with names of its own."""
        folder = self.directory / f"{self.name}-{role}"
        folder.mkdir()
        for name, target in (("ca-cert", "ca.pem"), (f"{role}-cert", f"{host}.pem"), (f"{role}-key", f"{host}.key")):
            (folder / f"{name}.pem").symlink_to(pki / target)
        self.qmp("object-add", qom_type="tls-creds-x509", id=role, dir=str(folder), endpoint=role, verify_peer=True)
        self.qmp("migrate-set-parameters", tls_creds=role)

    def close(self):
        self.qmp.close()
        self.process.kill()
        self.process.wait()


class QemuPair:
    """A running guest, and before each move a QEMU that waits for it on the other host."""

    def __init__(self, peer, link, guest, directory, tools):
        self.peer, self.guest, self.directory = peer, guest, directory
        self.hosts = [("alpha", link.alpha), ("beta", link.beta)]  # where the guest is, where it is not
        if peer.tls:
            subprocess.run([tools.pki, directory / "pki", "alpha", "beta"], check=True)
        self.moves = 0
        self.destination = None
        self.source = self._start(self.hosts[0], incoming=False)

    def _start(self, where, incoming):
        name, host = where
        return Qemu(f"{name}{self.moves}", host, self.guest, self.directory, incoming)

    def console_path(self):
        return self.source.path("serial0")

    def heartbeat_path(self, moved=False):
        return (self.destination if moved else self.source).path("serial1")

    def prepare(self):
        self.moves += 1
        self.destination = self._start(self.hosts[1], incoming=True)
        if self.peer.tls:
            self._use_tls()
        for qemu in (self.source, self.destination):
            qemu.qmp("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("return-path", "events", *self.peer.capabilities)])
            qemu.qmp("migrate-set-parameters", max_bandwidth=0, downtime_limit=DOWNTIME_MS, **self.peer.parameters)

    def _use_tls(self):
        (source, _), (destination, _) = self.hosts
        self.source.use_certificates(self.directory / "pki", source, "client")
        self.source.qmp("migrate-set-parameters", tls_hostname=destination)
        self.destination.use_certificates(self.directory / "pki", destination, "server")

    def migrate(self, limit_s):
        address = f"tcp:{self.hosts[1][1].address}:{PORT + self.moves}"
        self.destination.qmp("migrate-incoming", uri=address)
        began = time.monotonic()
        self.source.qmp("migrate", uri=address)
        info = self._await_end(began + limit_s)
        time_s = time.monotonic() - began
        ram = info.get("ram", {})
        details = {"peer_time_s": info.get("total-time", 0) / 1000, "iterations": ram.get("dirty-sync-count"),
                   "peer_wire_bytes": ram.get("transferred")}
        if info["status"] != "completed":
            why = info.get("error-desc", f"did not converge within {limit_s:.0f} s")
            return Outcome(False, why, time_s, None, details)
        self.source.close()
        self.source, self.destination = self.destination, None
        self.hosts.reverse()
        return Outcome(True, "", time_s, info.get("downtime"), details)

    def _await_end(self, deadline):
        while True:
            info = self.source.qmp("query-migrate")
            if info["status"] in ("completed", "failed", "cancelled"):
                return info
            if time.monotonic() > deadline:
                self.source.qmp("migrate_cancel")
                return info
            time.sleep(POLL_S)

    def close(self):
        for qemu in (self.source, self.destination):
            if qemu:
                qemu.close()


@dataclass(frozen=True)
class QemuPeer:
    name: str
    capabilities: tuple = ()
    parameters: dict = field(default_factory=dict)
    tls: bool = False

    def boot(self, link, guest, directory, tools):
        return QemuPair(self, link, guest, directory, tools)


# ---- NovaCron -----------------------------------------------------------------------------------------------

GUEST = "bench"


class NovaPair:
    """Two daemons, and a guest that the first one started."""

    def __init__(self, peer, link, guest, directory, tools):
        self.peer, self.guest, self.directory, self.tools = peer, guest, directory, tools
        self.hosts = {"alpha": link.alpha, "beta": link.beta}
        self.at, self.other = "alpha", "beta"  # where the guest is, where it is not
        self.daemons = {}
        subprocess.run([tools.pki, directory / "pki", "alpha", "beta"], check=True)
        for name, other in (("alpha", "beta"), ("beta", "alpha")):
            self._configure(name, other)
        try:
            self._boot(guest)
        except BaseException:
            self.close()
            raise

    def _boot(self, guest):
        for name in self.hosts:
            self._start(name)
        self._command("alpha", "create", GUEST, "--machine", "pc", "--accel", guest.accel,
                      "--memory", f"{guest.size.memory_mib}M", "--kernel", guest.kernel, "--initrd", guest.initrd,
                      "--serial", "2", "--disk", f"path={guest.disk},format=raw,readonly=on,shared=on",
                      "--cmdline", guest.cmdline())
        self._command("alpha", "start", GUEST)

    def _port(self, name):
        return PORT + list(self.hosts).index(name)

    def _configure(self, name, other):
        home = self.directory / name
        home.mkdir()
        (self.directory / f"{name}.conf").write_text(f"""\
name = {name}
state-dir = {home}/state
runtime-dir = {home}/run
listen = {self.hosts[name].address}:{self._port(name)}
ca = {self.directory}/pki/ca.pem
cert = {self.directory}/pki/{name}.pem
key = {self.directory}/pki/{name}.key
roots = {home}
roots = {self.guest.kernel.parent}
[peer {other}]
address = {self.hosts[other].address}:{self._port(other)}
""")

    def _start(self, name):
        ready, told = os.pipe()
        with open(ready) as answer, open(self.directory / f"{name}.log", "w") as log:
            try:
                self.daemons[name] = self.hosts[name].start(
                    self.tools.daemon, "--config", self.directory / f"{name}.conf", "--ready-fd", told,
                    stdout=log, stderr=log, pass_fds=[told])
            finally:
                os.close(told)
            if not answer.readline():  # it ended without a word there
                raise RuntimeError(f"novacrond of {name}: " + self._last_words(name))

    def _last_words(self, name):
        return (self.directory / f"{name}.log").read_text()[-300:].strip()

    def _argv(self, name, *words):
        return [self.tools.client, "--socket", self.directory / name / "run/control.sock", "--json", *map(str, words)]

    def _command(self, name, *words):
        done = subprocess.run(self._argv(name, *words), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"novacron {words[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def _serial(self, name, number):
        return self.directory / name / "run/guests" / GUEST / f"serial{number}.sock"

    def console_path(self):
        return self._serial(self.at, 0)

    def heartbeat_path(self, moved=False):
        return self._serial(self.other if moved else self.at, 1)

    def prepare(self):
        """The daemons do it all when they are told to migrate."""

    def migrate(self, limit_s):
        told = self.directory / "migrate.json"
        began = time.monotonic()
        with open(told, "w") as output, open(self.directory / "migrate.log", "w") as errors:
            client = subprocess.Popen(self._argv(self.at, "migrate", GUEST, "--to", self.other, "--downtime",
                                                 f"{DOWNTIME_MS}ms", *self.peer.options),
                                      stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
        try:
            late = not self._await(client, limit_s)
            time_s = time.monotonic() - began
            if late:
                self._cancel(told)
                self._await(client, CANCEL_LIMIT_S)
        finally:
            client.kill()
            client.wait()
        why = self._dead_daemon() or (f"did not converge within {limit_s:.0f} s" if late else "")
        return self._outcome(told, time_s, why)

    def _dead_daemon(self):
        dead = [f"novacrond of {name} ended with {process.returncode}: {self._last_words(name)}"
                for name, process in self.daemons.items() if process.poll() is not None]
        return "; ".join(dead)

    @staticmethod
    def _await(client, limit_s):
        try:
            client.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _cancel(self, told):
        jobs = [event["data"]["job"] for event in read_events(told) if "job" in event["data"]]
        if jobs:  # the answer does not matter: past its point of no return it is refused
            subprocess.run(self._argv(self.at, "cancel", jobs[0]), capture_output=True, stdin=subprocess.DEVNULL)

    def _outcome(self, told, time_s, why):
        ended = [event["data"] for event in read_events(told) if event["event"] == "JOB_ENDED"]
        if not ended:
            return Outcome(False, why or (self.directory / "migrate.log").read_text()[-300:].strip(), time_s)
        job, report = ended[-1], ended[-1].get("report") or {}
        details = {"peer_time_s": report.get("total_ms", 0) / 1000, "iterations": report.get("iterations"),
                   "peer_wire_bytes": report.get("wire_bytes"), "report": report}
        if job["outcome"] != "completed" or why:
            return Outcome(False, why or (job.get("error") or {}).get("text", job["outcome"]), time_s, None, details)
        self.at, self.other = self.other, self.at
        return Outcome(True, "", time_s, report.get("qemu_downtime_ms"), details)

    def close(self):
        for process in self.daemons.values():
            process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_events(path):
    """The lines of `novacron migrate --json`; the last one may be half written."""
    events = []
    for line in path.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


@dataclass(frozen=True)
class NovaPeer:
    name: str
    options: tuple = ()

    def boot(self, link, guest, directory, tools):
        return NovaPair(self, link, guest, directory, tools)


PEERS = {peer.name: peer for peer in (
    QemuPeer("qemu-tcp"),
    QemuPeer("qemu-xbzrle", ("xbzrle",), {"xbzrle_cache_size": 512 << 20}),
    QemuPeer("qemu-multifd-zstd", ("multifd",),
             {"multifd_channels": 2, "multifd_compression": "zstd", "multifd_zstd_level": 1}),
    QemuPeer("qemu-tls", tls=True),
    NovaPeer("novacron"),
)}
