"""Numbers drawn from a report of CPU and GPU: how much faster, from which size on, where the time goes.

A gain is the CPU's best time divided by the device's: above 1 the GPU is faster.
"""

import math

from .report import section, spread

OURS = "fastconv_cuda"
KINDS = {"warm": "best", "transfers": "transfers_best"}  # arrays stay on the device; come and go each call


def cells(report):
    """{(problem, direction): {implementation: result}} of the device, in the order of measurement."""
    found = {}
    for result in (report["device"] or {}).get("results", ()):
        found.setdefault((result["problem"], result["direction"]), {})[result["implementation"]] = result
    return found


def cpu_times(report):
    """{(problem, direction): {threads: best seconds of fastconv on the CPU}}, with memory kept if that was
    measured."""
    found = {}
    for allocator in ("as_called", "warm"):  # the later counts
        for r in report["results"]:
            if r["implementation"] == "fastconv" and r["allocator"] == allocator and "best" in r:
                found.setdefault((r["problem"], r["direction"]), {})[r["threads"]] = r["best"]
    return found


def gains(report, implementation=OURS):
    """One dictionary for each problem and direction that both have measured: problem, label, direction,
    section, and by the number of threads {"warm", "transfers"}: "gains"."""
    times, rows = cpu_times(report), []
    for key, cell in cells(report).items():
        own = cell.get(implementation, {})
        if "best" in own and key in times:
            by_threads = {
                threads: {kind: took / own[field] for kind, field in KINDS.items()}
                for threads, took in sorted(times[key].items())
            }
            row = {"problem": key[0], "label": own["label"], "direction": key[1], "section": section(own)}
            rows.append({**row, "gains": by_threads})
    return rows


def summary(report):
    """Gains in a few rows: section, threads, and warm and transfers, each {mean, worst, worst_label, count};
    mean: geometric mean. Rows are of `OURS`."""
    collected = {}
    for row in gains(report):
        for threads, by_kind in row["gains"].items():
            for kind, gain in by_kind.items():
                where = f"{row['label'] or row['problem']} {row['direction']}"
                collected.setdefault((row["section"], threads), {}).setdefault(kind, []).append((gain, where))
    return [
        {"section": kind, "threads": threads, **{name: spread(pairs) for name, pairs in by_kind.items()}}
        for (kind, threads), by_kind in collected.items()
    ]


def peer_ratios(report):
    """(implementation of fastconv's, peer, problem, direction, ratio) of warm times on the device.

    Compared is what rounds alike: TF32 with TF32, float32 with float32; ratio: the peer's time over ours.
    """
    for (name, direction), cell in cells(report).items():
        own = [n for n in cell if n.startswith(OURS) and "best" in cell[n]]
        others = [n for n in cell if not n.startswith(OURS) and "best" in cell[n]]
        for ours in own:
            for theirs in others:
                if ours.endswith("tf32") == theirs.endswith("tf32"):
                    yield ours, theirs, name, direction, cell[theirs]["best"] / cell[ours]["best"]


def against_peers(report):
    """{(implementation of fastconv's, peer): {mean, worst, worst_label, count} of `peer_ratios`}."""
    labels = {
        r["problem"]: r["label"] or r["problem"] for cell in cells(report).values() for r in cell.values()
    }
    collected = {}
    for ours, theirs, name, direction, ratio in peer_ratios(report):
        collected.setdefault((ours, theirs), []).append((ratio, f"{labels[name]} {direction}"))
    return {pair: spread(found) for pair, found in collected.items()}


def share(result):
    """{"in", "compute", "out"}: seconds of a call with transfers, by what it waits for; of their sum, the
    copies alone and the warm call, which may exceed `transfers_best` where they overlap."""
    return {"in": result["in_seconds"], "compute": result["best"], "out": result["out_seconds"]}


# -- where it starts to pay ----------------------------------------------------------------------------------


def crossing(cpu, device):
    """From which size on a device is faster: {"word": ..., "at": size or None}.

    cpu, device: {size: seconds}; sizes that only one of them has are left aside. "word" is "from" (slower at
    some size, faster at all larger ones: "at" is where the times meet, on the straight line between the two
    measured sizes on logarithmic axes), "always" (faster at every size), "never" (slower at the largest) or
    "unknown" (nothing to compare). Equal times count as faster.
    """
    sizes = sorted(set(cpu) & set(device))
    slower = [size for size in sizes if cpu[size] < device[size]]
    if not sizes or not slower:
        return {"word": "always" if sizes else "unknown", "at": None}
    below = slower[-1]
    if below == sizes[-1]:
        return {"word": "never", "at": None}
    above = sizes[sizes.index(below) + 1]
    low, high = (math.log(cpu[size] / device[size]) for size in (below, above))  # low < 0 <= high
    part = -low / (high - low)
    return {"word": "from", "at": math.exp(math.log(below) * (1 - part) + math.log(above) * part)}


def pays(cpu, device):
    """The crossings of results with a "value": one for each number of threads, implementation and kind.

    threads, implementation, transfers (bool), word, at, smallest, largest (the sizes compared).
    """
    here, found = {}, []
    for r in cpu:
        if "best" in r:
            here.setdefault(r["threads"], {})[r["value"]] = r["best"]
    for implementation in dict.fromkeys(r["implementation"] for r in device):
        for threads, times in sorted(here.items()):
            for kind, field in KINDS.items():
                there = {
                    r["value"]: r[field]
                    for r in device
                    if r["implementation"] == implementation and field in r
                }
                sizes = sorted(set(times) & set(there))
                ends = (
                    {"smallest": sizes[0], "largest": sizes[-1]}
                    if sizes
                    else {"smallest": None, "largest": None}
                )
                where = {
                    "threads": threads,
                    "implementation": implementation,
                    "transfers": kind == "transfers",
                }
                found.append({**where, **crossing(times, there), **ends})
    return found


def told(row):
    """A crossing in words: "from 23 on", "at every size from 1 on", "at no size up to 256"."""
    if row["word"] == "from":
        return f"from {row['at']:.3g} on"
    if row["word"] == "always":
        return f"at every size from {row['smallest']} on"
    return f"at no size up to {row['largest']}" if row["word"] == "never" else "not known"
