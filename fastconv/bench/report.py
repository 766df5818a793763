"""Reports: what a measurement leaves behind, its file, and the numbers drawn from it.

Ratios are always a peer's best time over fastconv's, for the same problem, direction, threads and allocator:
above 1 fastconv is faster.
"""

import copy
import json
import math
import os
import platform
from datetime import datetime, timezone

from .layers import CONVOLUTIONS
from .limits import limit

SCHEMA = """A report is a JSON object.

schema           "fastconv-bench/2"; /1 had no "device", and is read as well
created          ISO 8601, UTC
machine          processor, cores (that the process may use), memory_bytes, system, python
fastconv         version, isa (in force), isa_usable, compiler, openmp (the kernels use threads)
settings         threads, allocators, seconds (time per implementation and cell), isa (the cap asked for, or
                 null)
ceilings         list, for each dtype and number of threads: dtype, threads, isa, fma_gflops (multiply-adds
                 from registers: "the peak"), tile_gflops (the register tile from the first-level cache),
                 copy_gbytes, copies (list of [bytes read and written together, GB/s]: copying of arrays that
                 fit into caches), call_seconds (of the shortest call)
implementations  name -> title, missing (why it could not run, or null), versions (package -> version),
                 openmp (file names of the OpenMP runtimes that its processes had loaded, those of the one
                 with most); of those on a device also arrays (the library whose arrays they compute on)
results          list, one object for each problem, direction, threads, allocator and implementation:
    problem, label, group, family    the one-line name; its name in a list ("" if given by hand); the list;
                                     "conv", "pool", "activation", "loss", "norm", "linear" or "network"
    dtype                            "float32" or "float64"
    direction                        "forward", "backward_input", "backward_weight" (with bias), "backward",
                                     "loss", or "step" of training a network
    threads, allocator               allocator: "warm" (freed memory is kept by the process) or "as_called"
    implementation                   a key of "implementations"; "fastconv" is what users get
    flops, bytes                     of the direct sum (0: bound by memory); read and written at least
    least_flops, least_by            two for every multiply-add of the family of algorithms that needs fewest,
                                     transforms included, and that family: "direct sum" or "Winograd F(4,3)"
                                     (outputs and taps of a tile along an axis)
    least_tile_flops                 those of them that the register tile does: Winograd's products
    best, median, runs               seconds per call, number of samples; absent where there was nothing to
                                     time
    error_max, error_rms             largest and root mean square error against float64, relative to the
                                     root mean square of the results; absent with further allocators, where
                                     nothing new is computed
    algorithm, scratch_bytes         of fastconv's convolutions
    peak_bytes                       growth of the process's resident memory at the first call, results
                                     included
    first                            seconds of the first call
    refused | failed | wrong         instead of times: cannot compute this; broke down; computed it wrongly
sweeps           list, see sweep.py: axis, base, and results like the above with "value", the place on the
                 axis
regret           object or null, see sweep.py: what "auto" loses to the best algorithm over random shapes
device           what `--device cuda` measured, or null: an object
    name, simulator                  of the GPU; whether numba's simulator plays it, whose times mean nothing
    compute_capability, multiprocessors, memory_bytes    null in the simulator
    to_device_gbytes, to_host_gbytes, pinned_to_device_gbytes, pinned_to_host_gbytes
                                     copying 64 MiB from and to NumPy arrays, and page-locked memory
    copy_gbytes                      copying on the device, read and written
    call_seconds, answer_seconds     of relu on one element: queued one after the other; until it is done
    results                          list, one object for each problem, direction and implementation: problem,
                                     label, group, family, dtype, direction, implementation, flops, bytes,
                                     algorithm, scratch_bytes, error_max, error_rms, refused, failed, wrong as
                                     above, and
        best, median, runs           warm: seconds per call when arrays are on the device and stay there, of
                                     calls queued one after the other, until all are done
        transfers_best, transfers_median
                                     with transfers: all inputs from NumPy arrays, the call, all results back
                                     to NumPy arrays (of a network images and labels in, logits or loss out)
        in_bytes, in_seconds, out_bytes, out_seconds     these transfers alone, best
        first                        seconds of the first call in this process, which may have what others
                                     of its calls have loaded
        cold                         seconds of the first call of a process that finds nothing compiled: with
                                     compiling, loading and planning; of fastconv's
        ulp_max                      fastconv's: how many floating-point numbers lie between its results and
                                     the CPU's, at most; null if only one is not a number
        ulp_size                     the largest difference from the CPU's results in units of the last place
                                     of a number as large as their root mean square
        cpu_error_max                as error_max, of the CPU
    crossings                        list: axis, base (the one-line name, * for what grows), direction, cpu
                                     and device (results as above, with "value", the place on the axis), and
                                     pays, a list: threads (of the CPU), implementation, transfers (whether they
                                     count), smallest and largest value measured, word ("from": slower at
                                     some value, faster at all larger ones; "always"; "never"; "unknown"),
                                     at (the value at which the times meet, interpolated, or null)
summary          drawn from the results when the file is written, ignored when it is read. Ratios are a
                 peer's best time over fastconv's; mean: geometric mean; worst: the smallest, worst_label:
                 of which problem; count: of how many; peer: a key of "implementations", or "fastest" (the
                 quickest of PyTorch NCHW, channels_last and ONNX Runtime, where more than one computes the
                 problem)
    headline                         list: title (of the row), section, direction, threads, and warm, limit,
                                     as_called, fastest (warm): each {mean, worst, worst_label, count} or
                                     null; the first three against PyTorch NCHW; limit: what warm would be if
                                     fastconv took its limit (see "limits") in every problem
    all                              list: section, direction, threads, allocator, peer, mean, worst,
                                     worst_label, count
    limits                           list: problem, label, direction, threads, allocator, limit (seconds: the
                                     longest of least_flops at fma_gflops (least_tile_flops at tile_gflops),
                                     bytes at the rate of copying as many, and call_seconds; a bound of the
                                     algorithms that fastconv has and its error bound admits), limit_by
                                     (least_by, "memory" or "call"), share (limit / fastconv's best time),
                                     ratio and at_limit (PyTorch NCHW's best time over fastconv's, and over
                                     the limit; null where it has none)
    device                           list: section, threads, warm, transfers: the CPU's best time over the
                                     device's
"""

SCHEMAS = ("fastconv-bench/1", "fastconv-bench/2")

CHAMPIONS = ("torch", "torch_channels_last", "onnxruntime")  # their fastest is the hardest to beat
RIVAL = "torch"  # with NCHW tensors: what a user of arrays like ours would call

# Rows of the headline: (title, section, direction). What the project promises is told in these terms.
HEADLINE = (
    ("forward", "networks", "forward"),
    ("gradient of the input", "networks", "backward_input"),
    ("gradient of weight and bias", "networks", "backward_weight"),
    ("pools, activations, losses, norms, linear", "other operations", "all"),
    ("convolutions of odd sizes, all directions", "odd sizes", "all"),
)


def new_report():
    """An empty report that knows the machine."""
    from .. import __version__
    from .._cpu import isa

    build = isa.active().build_info()
    return {
        "schema": SCHEMAS[-1],
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
        "device": None,
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
    """Write a report as JSON, with its summary."""
    from . import gains  # which draws on this room

    drawn = {"headline": headline(report), "all": summary(report), "limits": limits(report)}
    drawn["device"] = gains.summary(report)
    content = {**report, "summary": drawn}
    with open(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def load(path):
    """Read a report; ValueError if the file holds none."""
    try:
        with open(path) as file:
            report = json.load(file)
    except ValueError as error:
        raise ValueError(f"bench: {path} is not JSON: {error}") from None
    if not isinstance(report, dict) or report.get("schema") not in SCHEMAS:
        raise ValueError(f"bench: {path} is not a report of this version (schema {' or '.join(SCHEMAS)})")
    report.pop("summary", None)  # drawn from the results again
    return {**report, "schema": SCHEMAS[-1], "device": report.get("device")}


def merge(reports):
    """Reports of the parts of one measurement as one report; where two measured the same, the later counts.

    ValueError if they are of different machines, instruction sets or versions: their times do not compare.
    """
    merged = copy.deepcopy(reports[0])
    for part in reports[1:]:
        for room, key in (("machine", "processor"), ("fastconv", "isa"), ("fastconv", "version")):
            if part[room][key] != merged[room][key]:
                raise ValueError(
                    f"bench: reports of different {room} {key} make no page together:"
                    f" {merged[room][key]} and {part[room][key]}"
                )
        merged["created"] = max(merged["created"], part["created"])
        merged["machine"]["cores"] = max(merged["machine"]["cores"], part["machine"]["cores"])
        for name, entry in part["implementations"].items():
            known = merged["implementations"].get(name)
            if known is None or (known["missing"] and not entry["missing"]):
                merged["implementations"][name] = copy.deepcopy(entry)
        for key in ("threads", "allocators"):
            both = (*merged["settings"].get(key, ()), *part["settings"].get(key, ()))
            merged["settings"][key] = list(dict.fromkeys(both))
        merged["settings"] = {**part["settings"], **merged["settings"]}
        merged["ceilings"] = _joined(merged["ceilings"], part["ceilings"], "dtype", "threads")
        keys = "problem", "direction", "threads", "allocator", "implementation"
        merged["results"] = _joined(merged["results"], part["results"], *keys)
        merged["sweeps"] = _joined(merged["sweeps"], part["sweeps"], "axis", "direction", "base")
        merged["regret"] = part["regret"] or merged["regret"]
        merged["device"] = _joined_devices(merged["device"], part["device"])
    return merged


def _joined_devices(first, second):
    """What was measured on one device in two parts."""
    if first is None or second is None:
        return copy.deepcopy(first or second)
    if first["name"] != second["name"]:
        names = f"{first['name']} and {second['name']}"
        raise ValueError(f"bench: reports of different devices make no page together: {names}")
    results = _joined(first["results"], second["results"], "problem", "direction", "implementation")
    crossings = _joined(first["crossings"], second["crossings"], "base", "direction")
    return {**first, "results": results, "crossings": crossings}


def _joined(first, second, *keys):
    """Two lists of dictionaries as one, each combination of the values of `keys` once, the later counting."""
    return list({tuple(entry[key] for key in keys): entry for entry in (*first, *second)}.values())


# -- numbers drawn from results ------------------------------------------------------------------------------


def section(result):
    """What kind of problem this is, for summaries: networks (their convolutions), odd sizes, small, other
    operations, whole networks, or given."""
    if result["family"] == "network":
        return "whole networks"
    if result["group"] in CONVOLUTIONS:
        return "networks"
    if result["group"] in ("odd", "small", "given"):
        return {"odd": "odd sizes", "small": "small sizes", "given": "given"}[result["group"]]
    return "other operations"


def of_cpu(report):
    """Names of the implementations that computed on the CPU (those on a device are told by `device`)."""
    entries = report["implementations"].items()
    return [name for name, entry in entries if entry["missing"] is None and "arrays" not in entry]


def short(name):
    """The head of a column."""
    known = {"torch_channels_last": "torch last", "onnxruntime": "onnx", "fastconv_cuda": "GPU"}
    known |= {"cudnn_tf32": "cuDNN tf32", "cudnn_last": "cuDNN last", "cudnn_last_tf32": "last tf32"}
    plain = name.removeprefix("fastconv:").replace("fastconv_cuda:", "GPU ")
    return known.get(name, plain)[:10]


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
    return [{**dict(zip(names, key)), **spread(pairs)} for key, pairs in collected.items()]


def spread(pairs):
    """{mean, worst, worst_label, count} of (ratio, label) pairs; mean: the geometric mean."""
    worst, label = min(pairs)
    mean = math.exp(sum(math.log(ratio) for ratio, _ in pairs) / len(pairs))
    return {"mean": mean, "worst": worst, "worst_label": label, "count": len(pairs)}


COLUMNS = ("warm", "limit", "as_called", "fastest")


def headline(report):
    """The summary in a few rows, for each number of threads: a list of dictionaries.

    title, section, direction ("all" takes every direction), threads; warm and as_called: ratios to PyTorch
    NCHW; limit: what warm would be if fastconv took its limit in every problem; fastest: ratios to the
    fastest peer, warm; each {mean, worst, worst_label, count}, or None if there are none.
    """
    collected = {}
    for (name, direction, threads, allocator), cell in cells(report).items():
        any_result, against = next(iter(cell.values())), ratios(cell)
        found = {allocator: against.get(RIVAL)}
        if allocator == "warm":
            found |= {"limit": at_limit(report, cell), "fastest": against.get("fastest")}
        for title, kind, which in HEADLINE:
            if section(any_result) == kind and which in (direction, "all"):
                pairs = collected.setdefault((title, kind, which, threads), {})
                place = any_result["label"] or name
                place += f" {direction}" * (which == "all")
                for column, ratio in found.items():
                    if ratio is not None:
                        pairs.setdefault(column, []).append((ratio, place))
    rows = []
    for title, kind, which in HEADLINE:
        for (this, _, _, threads), pairs in collected.items():
            if this == title and pairs:
                columns = {c: spread(pairs[c]) if c in pairs else None for c in COLUMNS}
                rows.append(
                    {"title": title, "section": kind, "direction": which, "threads": threads, **columns}
                )
    return rows


def slowest(report, count=10):
    """The `count` cells (None: all) in which fastconv does worst against the fastest of `CHAMPIONS`: a list
    of dictionaries, worst first.

    problem, label, direction, threads, allocator, peer (which is the fastest), theirs, ours (best seconds),
    ratio, at_limit (what it would be at fastconv's limit, or None), algorithm, peak_share (of the
    multiply-adds, or None), gbytes (per second).
    """
    rows = []
    for (name, direction, threads, allocator), cell in cells(report).items():
        own = cell.get("fastconv", {})
        times = {peer: cell[peer]["best"] for peer in CHAMPIONS if "best" in cell.get(peer, {})}
        if "best" in own and times:
            peer = min(times, key=times.get)
            row = {"problem": name, "label": own["label"], "direction": direction, "threads": threads}
            row |= {"allocator": allocator, "peer": peer, "theirs": times[peer], "ours": own["best"]}
            row |= {"ratio": times[peer] / own["best"], "algorithm": own.get("algorithm", "")}
            rate, bound = rates(report, own), limit_of(report, own)
            row["at_limit"] = times[peer] / bound[0] if bound else None
            rows.append({**row, "peak_share": rate["peak_share"], "gbytes": rate["gbytes"]})
    return sorted(rows, key=lambda row: row["ratio"])[:count]


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


def limit_of(report, result):
    """`limits.limit` by the ceilings of the report."""
    return limit(result, ceiling(report, result))


def at_limit(report, cell):
    """PyTorch NCHW's best time over fastconv's limit in a cell, or None."""
    own, theirs = cell.get("fastconv", {}), cell.get(RIVAL, {})
    bound = limit_of(report, own) if "best" in own and "best" in theirs else None
    return theirs["best"] / bound[0] if bound else None


def limits(report):
    """What could be reached, and what is, in each cell: a list of dictionaries, see `SCHEMA`."""
    rows = []
    for (name, direction, threads, allocator), cell in cells(report).items():
        own = cell.get("fastconv", {})
        bound = limit_of(report, own) if "best" in own else None
        if bound:
            row = {"problem": name, "label": own["label"], "direction": direction, "threads": threads}
            row |= {"allocator": allocator, "limit": bound[0], "limit_by": bound[1]}
            row |= {"share": bound[0] / own["best"], "ratio": ratios(cell).get(RIVAL)}
            rows.append({**row, "at_limit": at_limit(report, cell)})
    return rows


# -- comparing two reports -----------------------------------------------------------------------------------


def compare(old, new, tolerance=0.1):
    """What became slower or faster between two reports of one machine: a list of dictionaries, worst first.

    problem, label, direction, threads, allocator, implementation, before, after (best seconds), change
    (after / before), verdict: "slower" beyond the tolerance, "faster", "same". Only fastconv's own results
    are compared; those of a device have 0 threads and the allocator "device", and their warm times count.
    """

    def index(report):
        keys = "problem", "direction", "threads", "allocator", "implementation"
        there = (report["device"] or {}).get("results", ())
        every = [*report["results"], *({**r, "threads": 0, "allocator": "device"} for r in there)]
        own = (r for r in every if r["implementation"].startswith("fastconv") and "best" in r)
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
