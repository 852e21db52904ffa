# SPDX-License-Identifier: Apache-2.0
"""serial.py - what a guest says on its serial ports: the console, and the heartbeat that measures its pauses.

The heartbeat is a line "H sequence monotonic_us real_us" every 10 ms. The guest runs on one host at a time, so the bytes of
both hosts' sockets in the order of their arrival are one text: a line that a migration cuts in two comes together again.
A pause is the time between two beats by this machine's clock; 10 ms is the least that can be seen.
"""
import select
import socket
import threading
import time

from qmp import connect

RETRY_S = 0.02  # how soon a socket that appears is found

class Console:
    def __init__(self, path, limit_s=10):
        self.socket = connect(path, limit_s)
        self.heard = ""

    def listen(self, seconds):
        """Take what the guest says within this time; false if the console has ended."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return True
        data = self.socket.recv(65536)
        self.heard += data.decode(errors="replace")
        return bool(data)

    def ask(self, line, pattern, limit_s, again_s=1.0):
        """Say the line until the guest answers with a line in which pattern stands; return it from there on."""
        began = time.monotonic()
        said = began - again_s
        while time.monotonic() < began + limit_s:
            if time.monotonic() - said >= again_s:
                self.socket.sendall(line.encode() + b"\n")
                said = time.monotonic()
            alive = self.listen(0.1)
            answer = self._line_with(pattern)
            if answer is not None:
                return answer
            if not alive:
                break
        raise TimeoutError(f"no {pattern!r} from the guest in {time.monotonic() - began:.0f} s; "
                           f"it said {self.last_words()!r}")

    def _line_with(self, pattern):
        start = self.heard.find(pattern)
        end = self.heard.find("\n", start)
        if start < 0 or end < 0:
            return None
        line, self.heard = self.heard[start:end].strip(), self.heard[end + 1:]
        return line

    def last_words(self):
        return self.heard[-300:].strip()

    def close(self):
        self.socket.close()


class Heartbeat:
    """Listens, until closed, on every socket where the heartbeat may appear."""

    def __init__(self):
        self.sockets = {}  # path -> connected socket, None: not there (yet, or any more)
        self.beats = []  # (when, sequence, path)
        self.text = b""
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def listen(self, path):
        self.sockets.setdefault(str(path), None)

    def _run(self):
        while not self.stop.is_set():
            for path in [path for path, known in list(self.sockets.items()) if known is None]:
                self._connect(path)
            self._read()

    def _connect(self, path):
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            attempt.connect(path)
        except OSError:
            attempt.close()
            return
        self.sockets[path] = attempt

    def _read(self):
        connected = {known: path for path, known in list(self.sockets.items()) if known is not None}
        for known in select.select(list(connected), [], [], RETRY_S)[0]:
            path = connected[known]
            try:
                data = known.recv(4096)
            except OSError:
                data = b""
            if not data:
                known.close()
                self.sockets[path] = None
            self._take(data, path, time.monotonic())

    def _take(self, data, path, now):
        *lines, self.text = (self.text + data).split(b"\n")
        self.text = self.text[-255:]
        for line in lines:
            words = line.split()
            if len(words) == 4 and words[0] == b"H" and words[1].isdigit():
                self.beats.append((now, int(words[1]), path))

    def largest_gap_ms(self, since, until):
        """The longest silence that touches this time; None without two beats around it."""
        beats = [when for when, _, _ in list(self.beats)]
        gaps = [after - before for before, after in zip(beats, beats[1:]) if after >= since and before <= until]
        return round(max(gaps) * 1000, 1) if gaps else None

    def missing(self, since):
        """Beats since then whose line never came whole."""
        numbers = [number for when, number, _ in list(self.beats) if when >= since]
        return numbers[-1] - numbers[0] + 1 - len(set(numbers)) if numbers else 0

    def count(self, path, since):
        return sum(1 for when, _, where in list(self.beats) if where == str(path) and when >= since)

    def close(self):
        self.stop.set()
        self.thread.join()
        for known in self.sockets.values():
            if known is not None:
                known.close()
