"""A report as text: tables for the terminal, and the headline as a Markdown table for a document."""

from . import device_tables
from .report import (
    RIVAL,
    at_limit,
    cells,
    headline,
    limits,
    of_cpu,
    rates,
    ratios,
    section,
    short,
    slowest,
    summary,
)


def table(report):
    """The report as text: a table for each allocator, number of threads and direction; then the summary."""
    lines = [*_heading(report), ""]
    peers = [name for name in of_cpu(report) if name != "fastconv"]
    tables = {}
    for (_, direction, threads, allocator), cell in cells(report).items():
        tables.setdefault((allocator, threads, direction), []).append(cell)
    width = max([len(_label(cell)) for group in tables.values() for cell in group], default=0)
    for (allocator, threads, direction), group in tables.items():
        lines.append(f"{direction}, {threads} thread{'s' * (threads > 1)}, {allocator}")
        heads = "".join(_beside(name, f"{short(name):>11}", f"{'(limit)':>11}") for name in peers)
        own = "  best ms   median  GFLOP/s % peak   GB/s    error"
        lines.append(f"{'':<{width}} {own}{heads}  algorithm")
        lines += [_row(report, cell, peers, width) for cell in group] + [""]
    lines += _sweep_lines(report) + _summary_lines(report) + _headline_lines(report) + _slowest_lines(report)
    return "\n".join([*lines, *device_tables.lines(report), *_absent(report)])


def _label(cell):
    result = next(iter(cell.values()))
    return result["label"] or result["problem"]


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
    reached = {
        name: f"{against[name]:10.2f}x" if name in against else f"{_trouble(cell.get(name)):>11}"
        for name in peers
    }
    bound = at_limit(report, cell)
    bound = f"{f'({bound:.2f}x)':>11}" if bound else f"{'':>11}"
    columns = "".join(_beside(name, text, bound) for name, text in reached.items())
    return f"{_label(cell):<{width}} {numbers}{columns}  {(own or {}).get('algorithm', '')}".rstrip()


def _beside(name, text, bound):
    """A peer's column; behind the rival's that of the limit."""
    return text + bound if name == RIVAL else text


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
    if any(row["at_limit"] for row in limits(report)):
        yield (
            "(limit): what PyTorch's column would be if fastconv took the least possible time: the fewest\n"
            "multiply-adds of its algorithms at the peak, or the bytes of all arrays at the rate of copying."
        )


def _sweep_lines(report):
    """For each axis a line per place on it: the best milliseconds of every implementation."""
    lines = []
    for sweep in report["sweeps"]:
        places = {}
        for r in sweep["results"]:
            places.setdefault(r["value"], {})[r["implementation"]] = r
        names = list(dict.fromkeys(r["implementation"] for r in sweep["results"]))
        lines.append(f"{sweep['direction']} of {sweep['base']}: best milliseconds against {sweep['axis']}")
        lines.append(f"{'':>8}{''.join(f'{short(name):>11}' for name in names)}")
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
        heads = "".join(f"{short(peer):>15}" for peer in peers)
        lines.append(f"{'All ratios: geometric mean / worst':<46}{heads}")
    for where, row in rows.items():
        shown = (f"{row[p]['mean']:.2f} / {row[p]['worst']:.2f}" if p in row else "-" for p in peers)
        lines.append(f"{where:<46}{''.join(f'{text:>15}' for text in shown)}")
    return [*lines, ""] if lines else []


def _headline_lines(report):
    """The headline: what a reader should look at first, which is why it stands near the end of the output."""
    rows = headline(report)
    if not rows:
        return []
    head = "In short: geometric mean / worst (problem)"
    lines = [(head, "warm: PyTorch NCHW", "(limit)", "as called", "warm: fastest peer")]
    for row in rows:
        warm, fastest = (_spread_text(row[column]) for column in ("warm", "fastest"))
        called, bound = (_mean_text(row[column]) for column in ("as_called", "limit"))
        bound = f"({bound})" if row["limit"] else ""
        lines.append((f"{row['title']}, {row['threads']}T", warm, bound, called, fastest))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [*("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines), ""]


def _spread_text(spread):
    return f"{spread['mean']:.2f} / {spread['worst']:.2f} ({spread['worst_label']})" if spread else "-"


def _mean_text(spread):
    return f"{spread['mean']:.2f}" if spread else "-"


def _slowest_lines(report):
    """The cells in which the fastest peer is closest, or ahead."""
    rows = slowest(report, 5)
    if not rows:
        return []
    known = any(r["at_limit"] for r in rows)
    lines = [f"Closest to the fastest peer{' (at the limit)' * known}, or behind it:"]
    for r in rows:
        where = f"{r['label'] or r['problem']} {r['direction']}, {r['threads']}T, {r['allocator']}"
        share = f", {100 * r['peak_share']:.0f} % of peak" if r["peak_share"] else f", {r['gbytes']:.1f} GB/s"
        times = f"{1e3 * r['theirs']:.4g} ms / {1e3 * r['ours']:.4g} ms"
        reached = f"{r['ratio']:5.2f}x" + (f" ({r['at_limit']:.2f}x)" if r["at_limit"] else "")
        lines.append(
            f"  {reached}  {where:<50} {short(r['peer'])} {times}{share}  {r['algorithm']}".rstrip()
        )
    return [*lines, ""]


def markdown(report):
    """The headline as a Markdown table, with a line that says on what and how it was measured, and a table of
    the networks' layers."""
    machine, own, settings = report["machine"], report["fastconv"], report["settings"]
    rows = headline(report)
    counts = list(dict.fromkeys(row["threads"] for row in rows))

    def values(title, show):
        by_threads = {row["threads"]: row for row in rows if row["title"] == title}
        return ", ".join(show(by_threads[n]) if n in by_threads else "-" for n in counts)

    def both(column):
        return lambda row: f"{row[column]['mean']:.2f} / {row[column]['worst']:.2f}" if row[column] else "-"

    def mean(column):
        return lambda row: _mean_text(row[column])

    lines = [
        "| | PyTorch, warm: mean / worst | limit | as called: mean | fastest peer, warm: mean / worst |",
        "|---|---|---|---|---|",
    ]
    for title in dict.fromkeys(row["title"] for row in rows):
        columns = (
            values(title, show) for show in (both("warm"), mean("limit"), mean("as_called"), both("fastest"))
        )
        lines.append(f"| {title} | {' | '.join(columns)} |")
    versions = {}
    for name, entry in report["implementations"].items():
        if name in of_cpu(report) and name.partition(":")[0] != "fastconv":
            versions |= entry["versions"]
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    several = " threads, in this order" if len(counts) > 1 else " thread" + "s" * (counts != [1])
    threads = " and ".join(map(str, counts)) + several
    lines.append(
        f"\nA peer's time divided by fastconv's: geometric mean and worst problem, on {threads}."
        f" {machine['processor']} with {own['isa']}, fastconv {own['version']}, {told};"
        f" {report['created'][:10]}, best times of {settings.get('seconds', 0):g} s each in turns. Limit:"
        " what the first column's mean would be if fastconv took the least possible time: the fewest"
        " multiply-adds of its algorithms at the measured peak, or the bytes of all arrays at the measured"
        " rate of copying."
    )
    return "\n".join([*lines, *_layer_lines(report, counts)]) + "\n"


def _layer_lines(report, counts):
    """A Markdown table of the networks' layers: PyTorch's time over fastconv's, warm, and the limit."""
    found, directions = {}, ("forward", "backward_input", "backward_weight")
    listed = {result["problem"] for result in report["results"] if section(result) == "networks"}
    for row in limits(report):
        if row["allocator"] == "warm" and row["problem"] in listed and row["ratio"]:
            layer = found.setdefault(row["label"] or row["problem"], {})
            layer[row["direction"], row["threads"]] = f"{row['ratio']:.2f} ({row['at_limit']:.2f})"
    if not found:
        return
    yield "\n| layer (limit) | forward | gradient of the input | gradient of weight and bias |"
    yield "|---|---|---|---|"
    for label, layer in found.items():
        cells = (", ".join(layer.get((d, n), "-") for n in counts) for d in directions)
        yield f"| {label} | {' | '.join(cells)} |"


def _absent(report):
    absent = [f"{name} ({e['missing']})" for name, e in report["implementations"].items() if e["missing"]]
    lines = [f"left out: {', '.join(absent)}"] if absent else []
    for name, entry in report["implementations"].items():
        if len(entry["openmp"]) > 1:
            runtimes = ", ".join(entry["openmp"])
            lines.append(f"{name}: several OpenMP runtimes in one process, its times may suffer: {runtimes}")
    every = [*report["results"], *(report["device"] or {}).get("results", ())]
    broken = [r for r in every if "failed" in r or "wrong" in r]
    for r in broken:
        word = "failed" if "failed" in r else "wrong"
        lines.append(
            f"{word}: {r['implementation']}, {r['label'] or r['problem']} {r['direction']}: {r[word]}"
        )
    return lines


def comparison_table(rows):
    """The rows of `compare` as text, those that changed in full."""
    lines = []
    for row in rows:
        if row["verdict"] != "same":
            place = f"{row['threads']}T, {row['allocator']}" if row["threads"] else "on the GPU"
            where = f"{row['label'] or row['problem']} {row['direction']}, {place}"
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
