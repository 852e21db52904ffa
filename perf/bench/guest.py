# SPDX-License-Identifier: Apache-2.0
"""guest.py - the guests of the benchmark: how large, what memory holds, what the workload does.

The image is that of the tests (tests/guest/build). Memory is a third text, a third binaries, a sixth random and a sixth
repeated pages; where a workload changes memory, the part that it changes is text. The binaries are files of this machine's
/usr, read by the guest from a read-only disk past its page cache, so that they are in memory once.
"""
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
PAGE = 4096
FILE_MOST = 4 * MIB  # of one file, so that a few giants do not fill the disk alone

# What the guest does meanwhile: how it touches pages, how many MiB of them a second.
WORKLOADS = {
    "idle": None,
    "edits": ("edit8", 4),   # 8 bytes in place, 4 MiB/s of pages
    "text40": ("text", 40),  # pages written anew
}


@dataclass(frozen=True)
class Size:
    name: str
    memory_mib: int
    text_mib: int
    binaries_mib: int
    random_mib: int
    repeated_mib: int
    changing_mib: int  # of the text

    @property
    def touched_mib(self):
        return self.text_mib + self.binaries_mib + self.random_mib + self.repeated_mib


SIZES = {
    "1g": Size("1g", 1024, 200, 200, 100, 100, 100),
    "512m": Size("512m", 512, 50, 50, 25, 25, 25),
}


@dataclass(frozen=True)
class Guest:
    size: Size
    workload: str
    kernel: Path
    initrd: Path
    disk: Path
    accel: str

    @property
    def rate_mib(self):
        return WORKLOADS[self.workload][1] if WORKLOADS[self.workload] else 0

    def cmdline(self):
        size, work = self.size, WORKLOADS[self.workload]
        text = size.text_mib - (size.changing_mib if work else 0)
        words = ["console=ttyS0", "quiet", "panic=-1", "nokaslr", "mitigations=off",
                 f"fill=text:{text},disk:{size.binaries_mib},rand:{size.random_mib},dup:{size.repeated_mib}"]
        if work:
            words.append(f"dirty={work[0]}:{size.changing_mib}:{work[1]}")
        return " ".join(words)


def accelerator():
    with open("/proc/cpuinfo") as cpuinfo:  # some /dev/kvm have no hardware behind them and boot no guest
        hardware = re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo.read(), re.M)
    return "kvm" if hardware and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def build(source, directory):
    """Kernel, initial ram disk and the disk of binaries below directory; what is there is kept."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run([source / "tests/guest/build", directory], check=True, stdout=subprocess.DEVNULL)
    disk = directory / "binaries.img"
    if not disk.exists():
        write_binaries(disk, max(size.binaries_mib for size in SIZES.values()) * MIB)
    return directory / "vmlinuz", directory / "initrd", disk


def write_binaries(path, length):
    """Files of /usr one after the other, each from a page's beginning, as a page cache holds them."""
    unfinished = path.with_suffix(".new")
    with open(unfinished, "wb") as disk:
        for content in binaries():
            disk.write(content[:length - disk.tell()])
            if disk.tell() == length:
                break
        else:
            raise RuntimeError(f"/usr has less than {length // MIB} MiB of binaries")
    unfinished.rename(path)


def binaries():
    for top in ("/usr/bin", "/usr/sbin", "/usr/lib"):
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_symlink() or not file.is_file():
                    continue
                with open(file, "rb") as binary:
                    content = binary.read(FILE_MOST)
                if content.startswith(b"\x7fELF"):
                    yield content + bytes(-len(content) % PAGE)
