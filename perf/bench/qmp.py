# SPDX-License-Identifier: Apache-2.0
"""qmp.py - a QMP client for one command at a time; events that come meanwhile are dropped."""
import json
import socket
import time


class QmpError(Exception):
    """QEMU's refusal: class and text."""


class Qmp:
    def __init__(self, path, limit_s=10):
        self.socket = connect(path, limit_s)
        self.socket.settimeout(limit_s)
        self.input = self.socket.makefile("rb")
        self._read()  # the greeting
        self("qmp_capabilities")

    def _read(self):
        line = self.input.readline()
        if not line:
            raise QmpError("QEMU closed its monitor")
        return json.loads(line)

    def __call__(self, command, **arguments):
        """The command by QEMU's name; an argument's dashes are underscores here."""
        request = {"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['class']}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self.input.close()
        self.socket.close()


def connect(path, limit_s):
    """The socket appears when its process has come so far."""
    deadline = time.monotonic() + limit_s
    while True:
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            attempt.connect(str(path))
            return attempt
        except OSError as error:
            attempt.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: {error.strerror} for {limit_s} s") from error
        time.sleep(0.02)
