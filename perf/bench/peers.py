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

class QemuPair:
    """A running guest and a QEMU that waits for it."""

    def __init__(self, peer, link, guest, directory, tools):
        self.peer, self.link, self.guest, self.directory = peer, link, guest, directory
        self.processes = {}
        self.monitors = {}
        self.source = self._start("source", link.alpha)
        self.destination = self._start("destination", link.beta, "-incoming", "defer")
        if peer.tls:
            self._make_credentials(tools.pki)

    def path(self, side, what):
        return self.directory / f"{side}-{what}.sock"

    def _start(self, side, host, *more):
        guest, accel = self.guest, self.guest.accel
        argv = ["qemu-system-x86_64", "-name", side, "-nodefaults", "-no-user-config", "-display", "none",
                "-M", f"pc,accel={accel}", "-cpu", "host" if accel == "kvm" else "max",
                "-m", f"{guest.size.memory_mib}M", "-smp", "1", "-kernel", guest.kernel, "-initrd", guest.initrd,
                "-append", guest.cmdline(), "-qmp", f"unix:{self.path(side, 'qmp')},server=on,wait=off",
                "-blockdev", f"driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename={guest.disk}",
                "-device", "virtio-blk-pci,drive=disk0", "-device", "virtio-balloon-pci"]
        for number in range(2):
            socket = self.path(side, f"serial{number}")
            argv += ["-chardev", f"socket,id=serial{number},path={socket},server=on,wait=off",
                     "-serial", f"chardev:serial{number}"]
        log = open(self.directory / f"{side}.log", "w")
        self.processes[side] = host.start(*argv, *more, stdout=log, stderr=log)
        log.close()
        self.monitors[side] = Qmp(self.path(side, "qmp"))
        return self.monitors[side]

    def _make_credentials(self, pki):
        subprocess.run([pki, self.directory / "pki", "alpha", "beta"], check=True)
        for side, host, role in (("source", "alpha", "client"), ("destination", "beta", "server")):
            folder = self.directory / f"tls-{side}"
            folder.mkdir()
            for name, target in (("ca-cert", "ca.pem"), (f"{role}-cert", f"{host}.pem"), (f"{role}-key", f"{host}.key")):
                (folder / f"{name}.pem").symlink_to(self.directory / "pki" / target)
            self.monitors[side]("object-add", qom_type="tls-creds-x509", id="tls0", dir=str(folder), endpoint=role,
                                verify_peer=True)
            self.monitors[side]("migrate-set-parameters", tls_creds="tls0", tls_hostname="beta" if role == "client" else "")

    def console_path(self, moved):
        return self.path("destination" if moved else "source", "serial0")

    def heartbeat_paths(self):
        return [self.path("source", "serial1"), self.path("destination", "serial1")]

    def destination_heartbeat(self):
        return self.path("destination", "serial1")

    def migrate(self, limit_s):
        for monitor in self.monitors.values():
            monitor("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("return-path", "events", *self.peer.capabilities)])
            monitor("migrate-set-parameters", max_bandwidth=0, downtime_limit=DOWNTIME_MS, **self.peer.parameters)
        address = f"tcp:{self.link.beta.address}:{PORT}"
        self.destination("migrate-incoming", uri=address)
        began = time.monotonic()
        self.source("migrate", uri=address)
        info = self._await_end(began + limit_s)
        outcome = Outcome(info["status"] == "completed", time_s=time.monotonic() - began,
                          downtime_ms=info.get("downtime"))
        if not outcome.ok:
            outcome.why = info.get("error-desc", f"did not converge within {limit_s:.0f} s")
        outcome.details = {"peer_time_s": info.get("total-time", 0) / 1000, "iterations": info["ram"]["dirty-sync-count"],
                           "peer_wire_bytes": info["ram"]["transferred"]}
        return outcome

    def _await_end(self, deadline):
        while True:
            info = self.source("query-migrate")
            if info["status"] in ("completed", "failed", "cancelled"):
                return info
            if time.monotonic() > deadline:
                self.source("migrate_cancel")
                return info
            time.sleep(POLL_S)

    def close(self):
        for monitor in self.monitors.values():
            monitor.close()
        for process in self.processes.values():
            process.kill()
            process.wait()


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
        self.daemons = {}
        subprocess.run([tools.pki, directory / "pki", "alpha", "beta"], check=True)
        for name, other in (("alpha", "beta"), ("beta", "alpha")):
            self._configure(name, other)
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
root = {home}
root = {self.guest.kernel.parent}
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

    def console_path(self, moved):
        return self._serial("beta" if moved else "alpha", 0)

    def heartbeat_paths(self):
        return [self._serial("alpha", 1), self._serial("beta", 1)]

    def destination_heartbeat(self):
        return self._serial("beta", 1)

    def migrate(self, limit_s):
        told = self.directory / "migrate.json"
        began = time.monotonic()
        with open(told, "w") as output, open(self.directory / "migrate.log", "w") as errors:
            client = subprocess.Popen(self._argv("alpha", "migrate", GUEST, "--to", "beta", "--downtime",
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
        return self._outcome(told, time_s, f"did not converge within {limit_s:.0f} s" if late else "")

    @staticmethod
    def _await(client, limit_s):
        try:
            client.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _cancel(self, told):
        jobs = [event["data"]["job"] for event in read_events(told) if "job" in event["data"]]
        if jobs:
            self._command("alpha", "cancel", jobs[0])

    def _outcome(self, told, time_s, why):
        ended = [event["data"] for event in read_events(told) if event["event"] == "JOB_ENDED"]
        if not ended:
            return Outcome(False, why or (self.directory / "migrate.log").read_text()[-300:].strip(), time_s)
        job, report = ended[-1], ended[-1].get("report") or {}
        ok = job["outcome"] == "completed" and not why
        if not ok and not why:
            why = (job.get("error") or {}).get("text", job["outcome"])
        outcome = Outcome(ok, why, time_s, report.get("qemu_downtime_ms"))
        outcome.details = {"peer_time_s": report.get("elapsed_ms", 0) / 1000, "iterations": report.get("iterations"),
                           "peer_wire_bytes": report.get("wire_bytes"), "report": report}
        return outcome

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
