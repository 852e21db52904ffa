# SPDX-License-Identifier: Apache-2.0
"""report.py - a run as one JSON line, and runs as a table of medians, the worst, and ratios to QEMU's own."""
import json
from statistics import median

MIB = 1 << 20
NO_FIGURES = dict.fromkeys(("time_s", "downtime_ms", "heartbeat_gap_ms", "wire_bytes", "cpu_s", "peak_rss_bytes"))

# heading, field, divisor, digits: each gives median and worst
COLUMNS = (
    ("time s", "time_s", 1, 1),
    ("wire MiB", "wire_bytes", MIB, 1),
    ("downtime ms", "downtime_ms", 1, 0),
    ("gap ms", "heartbeat_gap_ms", 1, 0),
    ("CPU s", "cpu_s", 1, 1),
    ("guest's", "cpu_guest_s", 1, 1),
    ("CPU s/GiB", "cpu_s_per_gib", 1, 1),
    ("daemon MiB", "peak_rss_bytes", MIB, 0),
)
BASELINES = (("tcp", "qemu-tcp"), ("zstd", "qemu-multifd-zstd"))


def append(path, result):
    if path:
        with open(path, "a") as file:
            file.write(json.dumps(result) + "\n")


def figure(value, divisor, digits):
    return "-" if value is None else f"{value / divisor:.{digits}f}"


def line(result):
    """What is told while the runs go on."""
    told = "  ".join(f"{heading} {figure(result.get(name), divisor, digits)}" for heading, name, divisor, digits in COLUMNS)
    failed = "" if result["ok"] else f"  FAILED: {result['why']}"
    return f"{result['link']} {result['workload']} {result['move']:<5} {result['peer']:<18} {told}{failed}"


def values(runs, name):
    return [run[name] for run in runs if run["ok"] and run.get(name) is not None]


def cell(runs, name, divisor, digits):
    found = values(runs, name)
    if not found:
        return "-"
    middle, worst = figure(median(found), divisor, digits), figure(max(found), divisor, digits)
    return middle if len(found) == 1 else f"{middle} ({worst})"


def ratio(runs, baseline, name):
    ours, theirs = values(runs, name), values(baseline, name)
    return f"{median(ours) / median(theirs):.2f}" if ours and theirs and median(theirs) else "-"


def groups(results):
    """Runs by what they share: link, guest, workload and move; then by peer, in the order they came."""
    found = {}
    for result in results:
        key = (result["link"], result["guest"], result["workload"], result["move"])
        found.setdefault(key, {}).setdefault(result["peer"], []).append(result)
    return found


def rows(peers):
    yield ["peer", "ok", *(heading for heading, *_ in COLUMNS),
           *(f"{what}/{short}" for short, _ in BASELINES for what in ("time", "bytes"))]
    for peer, runs in peers.items():
        yield [peer, f"{sum(run['ok'] for run in runs)}/{len(runs)}", *(cell(runs, *column) for _, *column in COLUMNS),
               *(ratio(runs, peers.get(baseline, []), name) for _, baseline in BASELINES for name in ("time_s", "wire_bytes"))]


def table(results):
    """Medians, the worst in parentheses, of the runs that were ok."""
    text = []
    for (link, guest, workload, move), peers in groups(results).items():
        lines = list(rows(peers))
        widths = [max(map(len, column)) for column in zip(*lines)]
        text.append(f"{link}, guest {guest}, workload {workload}, {move} move: median (worst)")
        text += ["  " + "  ".join(word.ljust(width) for word, width in zip(words, widths)).rstrip() for words in lines]
        text.append("")
    return "\n".join(text)
