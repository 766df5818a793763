"""The GPU's part of a report as text: times, gains, where it starts to pay, parity."""

from . import gains
from .report import short

HEADS = ("warm", "transfers", "first", "cold")


def lines(report):
    """Nothing for a report without a device."""
    if report["device"] is None:
        return []
    parts = (_heading, _times, _summary, _peers, _crossings)
    return [line for part in parts for line in part(report)]


def _heading(report):
    there = report["device"]
    facts = [there["name"]]
    if there["simulator"]:
        facts.append("whose times mean nothing")
    else:
        facts.append(f"compute capability {there['compute_capability']}")
        facts.append(f"{there['multiprocessors']} multiprocessors, {there['memory_bytes'] / 2**30:.0f} GB")
    yield f"GPU: {', '.join(facts)}"
    yield (
        f"  copying {there['copy_gbytes']:.4g} GB/s; to the device {there['to_device_gbytes']:.3g} GB/s"
        f" (page-locked {there['pinned_to_device_gbytes']:.3g}), back {there['to_host_gbytes']:.3g}"
        f" (page-locked {there['pinned_to_host_gbytes']:.3g}); a call {1e6 * there['call_seconds']:.3g} us, its answer"
        f" {1e6 * there['answer_seconds']:.3g} us"
    )
    ours = report["implementations"].get(gains.OURS, {})
    if ours.get("arrays"):
        yield f"  fastconv on arrays of {ours['arrays']}"
    yield ""


def _times(report):
    """A table for each direction: the CPU's milliseconds, the device's, parity, the others' warm."""
    by_direction, times = {}, gains.cpu_times(report)
    for (name, direction), cell in gains.cells(report).items():
        by_direction.setdefault(direction, []).append((name, cell))
    counts = sorted({threads for by_threads in times.values() for threads in by_threads})
    present = [n for c in gains.cells(report).values() for n in c if n != gains.OURS]
    others = [n for n in dict.fromkeys(present) if report["implementations"][n]["missing"] is None]
    for direction, rows in by_direction.items():
        yield f"{direction}, milliseconds: fastconv on the CPU; fastconv on the GPU; others on the GPU, warm"
        labels = [next(iter(cell.values()))["label"] or name for name, cell in rows]
        width = max(map(len, labels))
        heads = [*(f"CPU {n}T" for n in counts), *HEADS]
        last = ("ulp max", "ulp size", "error", "CPU error")
        titles = [short(name) for name in others]
        yield f"{'':<{width}}{_columns(heads)}{_columns(last)}{_columns(titles)}  algorithm"
        for label, (name, cell) in zip(labels, rows):
            own, here = cell.get(gains.OURS, {}), times.get((name, direction), {})
            found = [here.get(n) for n in counts]
            found += [own.get(key) for key in ("best", "transfers_best", "first", "cold")]
            values = [_milliseconds(value) for value in found]
            values += [_number(own.get(key)) for key in ("ulp_max", "ulp_size", "error_max", "cpu_error_max")]
            values += [_milliseconds(cell.get(other, {}).get("best")) for other in others]
            yield f"{label:<{width}}{_columns(values)}  {_word(own)}".rstrip()
        yield ""


def _columns(texts):
    return "".join(f"{text:>11}" for text in texts)


def _milliseconds(seconds):
    return f"{1e3 * seconds:.4g}" if seconds else "-"


def _number(value):
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) and value < 10**7 else f"{value:.2g}"


def _word(own):
    for word in ("wrong", "failed", "refused"):
        if word in own:
            return word
    return own.get("algorithm", "")


def _summary(report):
    rows = gains.summary(report)
    if rows:
        yield f"{'CPU time / GPU time: mean / worst':<46}{'warm':>15}{'with transfers':>17}"
    for row in rows:
        warm, moved = (f"{row[kind]['mean']:.3g} / {row[kind]['worst']:.3g}" for kind in gains.KINDS)
        yield f"{row['section']}, {row['threads']}T".ljust(46) + f"{warm:>15}{moved:>17}"
    if rows:
        yield ""


def _peers(report):
    found = gains.against_peers(report)
    if found:
        yield "On the GPU, warm: peer's time / fastconv's, mean / worst"
    for (ours, theirs), ratio in found.items():
        titles = (report["implementations"][name]["title"] for name in (ours, theirs))
        numbers = f"{ratio['mean']:.2f} / {ratio['worst']:.2f} ({ratio['worst_label']})"
        yield f"  {' against '.join(titles):<66}{numbers}"
    if found:
        yield ""


def _crossings(report):
    """Where the GPU starts to pay, in a sentence for each number of threads."""
    for crossing in report["device"]["crossings"]:
        yield f"The GPU pays, {crossing['direction']} of {crossing['base']}, with * ..."
        for row in crossing["pays"]:
            moved = "with transfers" if row["transfers"] else "arrays stay there"
            threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
            title = report["implementations"][row["implementation"]]["title"]
            yield f"  {title}, against {threads}, {moved}: {gains.told(row)}"
        yield ""
