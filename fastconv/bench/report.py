"""Reports: what a measurement leaves behind, its file, its summary, its tables for the terminal.

Ratios are always a peer's best time over fastconv's, for the same problem, direction, threads and allocator:
above 1 fastconv is faster.
"""

import json
import math
import os
import platform
from datetime import datetime, timezone

from .layers import CONVOLUTIONS

SCHEMA = """A report is a JSON object.

schema           "fastconv-bench/1"
created          ISO 8601, UTC
machine          processor, cores (that the process may use), memory_bytes, system, python
fastconv         version, isa (in force), isa_usable, compiler, openmp (the kernels use threads)
settings         threads, allocators, seconds (time per implementation and cell), isa (the cap asked for or
null) ceilings         list, for each dtype and number of threads: dtype, threads, isa, fma_gflops
(multiply-adds from
                 registers: "the peak"), tile_gflops (the register tile from the first-level cache),
                 copy_gbytes
implementations  name -> title, missing (why it could not run, or null), versions (package -> version),
                 openmp (file names of the OpenMP runtimes its process had loaded)
results          list, one object for each problem, direction, threads, allocator and implementation:
    problem, label, group, family    the one-line name; its name in a list ("" if given by hand), the list,
    "conv",
                                     "pool", "activation", "loss", "norm" or "linear"
    dtype                            "float32" or "float64"
    direction                        "forward", "backward_input", "backward_weight" (with bias), "backward",
    "loss" threads, allocator               allocator: "warm" (freed memory is kept by the process) or
    "as_called" implementation                   a key of "implementations"; "fastconv" is what users get
    flops, bytes                     of the direct sum (0: bound by memory); read and written at least best,
    median, runs               seconds per call, number of samples; absent where there was nothing to time
    error_max, error_rms             largest and root mean square error against float64, relative to the
    root mean
                                     square of the results; absent with further allocators, where nothing
                                     new is computed
    algorithm, scratch_bytes         of fastconv's convolutions
    peak_bytes                       growth of the process's resident memory at the first call, results
    included first                            seconds of the first call refused | failed | wrong
    instead of times: cannot compute this; broke down; computed it wrongly
sweeps           list, see sweep.py: axis, base, and results like the above with "value", the place on the
axis regret           object or null, see sweep.py: what "auto" loses to the best algorithm over random
shapes
"""

CHAMPIONS = ("torch", "torch_channels_last", "onnxruntime")  # their fastest is the hardest to beat


def new_report():
    """An empty report that knows the machine."""
    from .. import __version__
    from .._cpu import isa

    build = isa.active().build_info()
    return {
        "schema": "fastconv-bench/1",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": _memory(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "fastconv": {
            "version": __version__,
            "isa": build["isa"],
            "isa_usable": list(isa.levels()),
            "compiler": build["compiler"],
            "openmp": isa.threading(),
        },
        "settings": {},
        "ceilings": [],
        "implementations": {},
        "results": [],
        "sweeps": [],
        "regret": None,
    }


def processor():
    """The processor's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def save(report, path):
    """Write a report as JSON."""
    with open(path, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


def load(path):
    """Read a report; ValueError if the file holds none."""
    try:
        with open(path) as file:
            report = json.load(file)
    except ValueError as error:
        raise ValueError(f"bench: {path} is not JSON: {error}") from None
    if not isinstance(report, dict) or report.get("schema") != "fastconv-bench/1":
        raise ValueError(f"bench: {path} is not a report of this version (schema fastconv-bench/1)")
    return report


# -- numbers drawn from results ------------------------------------------------------------------------------


def section(result):
    """What kind of problem this is, for summaries: networks, odd sizes, small, other operations, or given."""
    if result["group"] in CONVOLUTIONS:
        return "networks"
    if result["group"] in ("odd", "small", "given"):
        return {"odd": "odd sizes", "small": "small sizes", "given": "given"}[result["group"]]
    return "other operations"


def cells(report):
    """{(problem, direction, threads, allocator): {implementation: result}} in the order of measurement."""
    found = {}
    for result in report["results"]:
        key = result["problem"], result["direction"], result["threads"], result["allocator"]
        found.setdefault(key, {})[result["implementation"]] = result
    return found


def ratios(cell):
    """{peer: its best time / fastconv's} of one cell; "fastest" is the quickest of `CHAMPIONS`."""
    own = cell.get("fastconv", {}).get("best")
    if own is None:
        return {}
    times = {name: result["best"] for name, result in cell.items() if "best" in result and name != "fastconv"}
    champions = [times[name] for name in CHAMPIONS if name in times]
    if len(champions) > 1:
        times["fastest"] = min(champions)
    return {name: best / own for name, best in times.items()}


def summary(report):
    """Geometric mean and worst case of the ratios: a list of dictionaries.

    section, direction, threads, allocator, peer ("fastest": the quickest of PyTorch NCHW, channels_last and
    ONNX Runtime in each cell), mean, worst, worst_label, count.
    """
    collected = {}
    for (name, direction, threads, allocator), cell in cells(report).items():
        any_result = next(iter(cell.values()))
        kind = section(any_result)
        # Of other operations one line for all: few of each, and their directions mean different things.
        key = kind, direction if kind != "other operations" else "all", threads, allocator
        for peer, ratio in ratios(cell).items():
            collected.setdefault((*key, peer), []).append((ratio, any_result["label"] or name))
    names = "section", "direction", "threads", "allocator", "peer"
    rows = []
    for key, pairs in collected.items():
        worst, label = min(pairs)
        mean = math.exp(sum(math.log(ratio) for ratio, _ in pairs) / len(pairs))
        row = dict(zip(names, key), mean=mean, worst=worst, worst_label=label, count=len(pairs))
        rows.append(row)
    return rows


def ceiling(report, result):
    """The ceilings that a result is measured by, or None."""
    for entry in report["ceilings"]:
        if entry["dtype"] == result["dtype"] and entry["threads"] == result["threads"]:
            return entry
    return None


def rates(report, result):
    """{"gflops", "gbytes", "peak_share"} of a timed result; peak_share None where flops do not bound it."""
    limit = ceiling(report, result)
    gflops = result["flops"] / result["best"] / 1e9
    share = gflops / limit["fma_gflops"] if limit and result["flops"] else None
    return {"gflops": gflops, "gbytes": result["bytes"] / result["best"] / 1e9, "peak_share": share}


# -- tables for the terminal ---------------------------------------------------------------------------------


def table(report):
    """The report as text: a table for each allocator, number of threads and direction; then the summary."""
    lines = [*_heading(report), ""]
    peers = [name for name in report["implementations"] if name != "fastconv"]
    peers = [name for name in peers if report["implementations"][name]["missing"] is None]
    tables = {}
    for (_, direction, threads, allocator), cell in cells(report).items():
        tables.setdefault((allocator, threads, direction), []).append(cell)
    width = max([len(_label(cell)) for group in tables.values() for cell in group], default=0)
    for (allocator, threads, direction), group in tables.items():
        lines.append(f"{direction}, {threads} thread{'s' * (threads > 1)}, {allocator}")
        heads = "".join(f"{_short(name):>11}" for name in peers)
        own = "  best ms   median  GFLOP/s % peak   GB/s    error"
        lines.append(f"{'':<{width}} {own}{heads}  algorithm")
        lines += [_row(report, cell, peers, width) for cell in group] + [""]
    return "\n".join(lines + _sweep_lines(report) + _summary_lines(report) + _absent(report))


def _label(cell):
    result = next(iter(cell.values()))
    return result["label"] or result["problem"]


def _short(name):
    return {"torch_channels_last": "torch last", "onnxruntime": "onnx"}.get(
        name, name.removeprefix("fastconv:")
    )[:10]


def _row(report, cell, peers, width):
    own = cell.get("fastconv")
    if own is None or "best" not in own:
        numbers = f"{_trouble(own):>50}"
    else:
        rate = rates(report, own)
        flops = f"{rate['gflops']:9.1f}" if own["flops"] else f"{'-':>9}"
        share = f"{100 * rate['peak_share']:7.0f}" if rate["peak_share"] else f"{'-':>7}"
        error = f"{own['error_max']:9.1e}" if "error_max" in own else f"{'-':>9}"
        numbers = (
            f"{1e3 * own['best']:9.4g}{1e3 * own['median']:9.4g}{flops}{share}{rate['gbytes']:7.1f}{error}"
        )
    against = ratios(cell)
    columns = "".join(
        f"{against[name]:10.2f}x" if name in against else f"{_trouble(cell.get(name)):>11}" for name in peers
    )
    return f"{_label(cell):<{width}} {numbers}{columns}  {(own or {}).get('algorithm', '')}".rstrip()


def _trouble(result):
    """A word for what has no time."""
    for word in ("wrong", "failed", "refused"):
        if result and word in result:
            return "-" if word == "refused" else word
    return "-"


def _heading(report):
    machine, own = report["machine"], report["fastconv"]
    yield f"fastconv {own['version']} ({own['isa']}) on {machine['processor']}, {machine['cores']} cores"
    for entry in report["ceilings"]:
        yield (
            f"  {entry['dtype']}, {entry['threads']} thread{'s' * (entry['threads'] > 1)}: peak"
            f" {entry['fma_gflops']:.0f} GFLOP/s, register tile {entry['tile_gflops']:.0f}, copying"
            f" {entry['copy_gbytes']:.0f} GB/s"
        )
    yield "Columns of implementations are their best time over fastconv's: above 1 fastconv is faster."


def _sweep_lines(report):
    """For each axis a line per place on it: the best milliseconds of every implementation."""
    lines = []
    for sweep in report["sweeps"]:
        places = {}
        for r in sweep["results"]:
            places.setdefault(r["value"], {})[r["implementation"]] = r
        names = list(dict.fromkeys(r["implementation"] for r in sweep["results"]))
        lines.append(f"{sweep['direction']} of {sweep['base']}: best milliseconds against {sweep['axis']}")
        lines.append(f"{'':>8}{''.join(f'{_short(name):>11}' for name in names)}")
        for value, by_name in places.items():
            times = (by_name.get(name, {}).get("best") for name in names)
            shown = "".join(f"{1e3 * best:11.4g}" if best else f"{'-':>11}" for best in times)
            lines.append(f"{value:>8}{shown}")
        lines.append("")
    return lines


def _summary_lines(report):
    """A line for each section, direction, threads and allocator: per peer "geometric mean / worst"."""
    rows, lines = {}, []
    for r in summary(report):
        where = f"{r['section']}, {r['direction']}, {r['threads']}T, {r['allocator']}"
        rows.setdefault(where, {})[r["peer"]] = r
    peers = list(dict.fromkeys(peer for row in rows.values() for peer in row))
    if peers:
        heads = "".join(f"{_short(peer):>13}" for peer in peers)
        lines.append(f"{'Summary: geometric mean / worst':<46}{heads}  worst problem")
    for where, row in rows.items():
        shown = (f"{row[p]['mean']:6.2f}/{row[p]['worst']:5.2f}" if p in row else "-" for p in peers)
        hardest = min(row.values(), key=lambda r: r["worst"])
        columns = "".join(f"{text:>13}" for text in shown)
        lines.append(f"{where:<46}{columns}  {hardest['worst_label']} ({_short(hardest['peer'])})")
    return [*lines, ""] if lines else []


def _absent(report):
    absent = [f"{name} ({e['missing']})" for name, e in report["implementations"].items() if e["missing"]]
    lines = [f"left out: {', '.join(absent)}"] if absent else []
    broken = [r for r in report["results"] if "failed" in r or "wrong" in r]
    for r in broken:
        word = "failed" if "failed" in r else "wrong"
        lines.append(
            f"{word}: {r['implementation']}, {r['label'] or r['problem']} {r['direction']}: {r[word]}"
        )
    return lines


# -- comparing two reports -----------------------------------------------------------------------------------


def compare(old, new, tolerance=0.1):
    """What became slower or faster between two reports of one machine: a list of dictionaries, worst first.

    problem, label, direction, threads, allocator, implementation, before, after (best seconds), change
    (after / before), verdict: "slower" beyond the tolerance, "faster", "same". Only fastconv's own results
    are compared.
    """

    def index(report):
        keys = "problem", "direction", "threads", "allocator", "implementation"
        own = (r for r in report["results"] if r["implementation"].startswith("fastconv") and "best" in r)
        return {tuple(r[key] for key in keys): r for r in own}

    before, rows = index(old), []
    for key, result in index(new).items():
        if key in before:
            change = result["best"] / before[key]["best"]
            verdict = (
                "slower" if change > 1 + tolerance else "faster" if change < 1 / (1 + tolerance) else "same"
            )
            names = ("problem", "direction", "threads", "allocator", "implementation")
            times = {"before": before[key]["best"], "after": result["best"]}
            rows.append(
                {
                    **dict(zip(names, key)),
                    "label": result["label"],
                    **times,
                    "change": change,
                    "verdict": verdict,
                }
            )
    return sorted(rows, key=lambda row: -row["change"])


def comparison_table(rows):
    """The rows of `compare` as text, those that changed in full."""
    lines = []
    for row in rows:
        if row["verdict"] != "same":
            where = (
                f"{row['label'] or row['problem']} {row['direction']}, {row['threads']}T, {row['allocator']}"
            )
            lines.append(
                f"{row['verdict']}: {where:<56}{row['implementation']:<24}"
                f"{1e3 * row['before']:10.4g} -> {1e3 * row['after']:.4g} ms ({row['change']:.2f}x)"
            )
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("slower", "faster", "same")
    }
    lines.append(
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f", of {len(rows)} compared"
    )
    return "\n".join(lines)
