"""The report as one self-contained page for readers who never saw the code: plots and how to read them."""

from html import escape

from . import device_html, svg
from .page_parts import mark, milliseconds, ratio, spread_cell, table_of, threads_text, time_cell, title_of
from .prose import ALLOCATORS, AXES, DIRECTIONS, GLOSSARY, METHOD, SECTIONS, TEXTS
from .report import (
    COLUMNS,
    RIVAL,
    at_limit,
    ceiling,
    cells,
    headline,
    limit_of,
    of_cpu,
    rates,
    ratios,
    section,
    slowest,
    summary,
)
from .style import STYLE


def write_html(report, path):
    """Write the page."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(report))


def page(report):
    """The page as text."""
    parts = (
        _head, _device_link, _short, _slowest, _speedups, _rooflines, _sweeps, _regret, _numbers,
        device_html.parts, _method,
    )  # fmt: skip
    body = "\n".join(part for make in parts for part in make(report))
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>fastconv benchmark</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


# -- parts ---------------------------------------------------------------------------------------------------


def _series(report):
    """{implementation: number of its colour}: fastconv 0, then peers, then fastconv's single algorithms."""
    present = of_cpu(report)
    present.sort(key=lambda name: (name != "fastconv", name.startswith("fastconv:")))
    return {name: number for number, name in enumerate(present)}


def _legend(report, names):
    series = _series(report)
    marks = (mark(series[name], title_of(report, name)) for name in names if name in series)
    return f'<p class="legend">{"".join(marks)}</p>'


def _head(report):
    machine, own = report["machine"], report["fastconv"]
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GB" if machine["memory_bytes"] else ""
    where = f"{machine['processor']}, {machine['cores']} core{'s' * (machine['cores'] > 1)}{memory}"
    when = report["created"][:16].replace("T", " ")
    facts = f"fastconv {own['version']} with {own['isa']} instructions on {where}; {when} UTC."
    yield f"<h1>fastconv benchmark</h1><p>{escape(facts)}</p>"
    yield f"<p>{TEXTS['what']}</p>"


def _device_link(report):
    if report["device"] is not None:
        yield f"<p>{TEXTS['device']}</p>"


def _short(report):
    """The headline, and behind it all summaries."""
    rows = headline(report)
    everything = _all_ratios(report)
    if not rows and not everything:
        return
    yield f"<h2>In short</h2><p>{TEXTS['short']}</p>"
    if rows:
        heads = (
            "",
            "PyTorch NCHW, memory kept",
            "the same at the limit",
            "PyTorch NCHW, as called",
            "fastest peer, memory kept",
        )
        lines = []
        for row in rows:
            columns = "".join(spread_cell(row[name]) for name in COLUMNS)
            lines.append(f"<td>{row['title']}, {threads_text(row['threads'])}</td>{columns}")
        yield table_of(heads, lines, "headline")
    if everything:
        opened = "" if rows else " open"
        title = "Every kind of problem against every peer"
        yield f"<details{opened}><summary>{title}</summary>{everything}</details>"


def _all_ratios(report):
    rows = summary(report)
    peers = list(dict.fromkeys(row["peer"] for row in rows if not row["peer"].startswith("fastconv")))
    table, lines = {}, []
    for row in rows:
        key = row["section"], row["direction"], row["threads"], row["allocator"]
        table.setdefault(key, {})[row["peer"]] = row
    for (kind, direction, threads, allocator), by_peer in table.items():
        what = f"{kind}, {DIRECTIONS[direction]}, {threads_text(threads)}, {ALLOCATORS[allocator]}"
        lines.append(f"<td>{what}</td>{''.join(spread_cell(by_peer.get(peer)) for peer in peers)}")
    return table_of(["", *(title_of(report, peer) for peer in peers)], lines) if peers else ""


def _slowest(report):
    """Where fastconv is behind, or nearly so: whoever wants to trust the rest looks here first."""
    rows = slowest(report, 10)
    if not rows:
        return
    behind = sum(row["ratio"] < 1 for row in slowest(report, None))
    every = len(slowest(report, None))
    yield f"<h2>Where it is hardest</h2><p>{TEXTS['slowest'].format(behind=behind, every=every)}</p>"
    lines = []
    for row in rows:
        where = (
            f"{DIRECTIONS[row['direction']]}, {threads_text(row['threads'])}, {ALLOCATORS[row['allocator']]}"
        )
        label = f"{escape(row['label'] or row['problem'])}<br><small>{where}</small>"
        share = (
            f"{100 * row['peak_share']:.0f} % of peak" if row["peak_share"] else f"{row['gbytes']:.1f} GB/s"
        )
        values = (
            f"{row['ratio']:.2f}x", ratio(row["at_limit"]) if row["at_limit"] else "-",
            title_of(report, row["peer"]), milliseconds(row["theirs"]), milliseconds(row["ours"]),
            f"{share}<br><small>{row['algorithm']}</small>",
        )  # fmt: skip
        columns = "".join(f"<td>{value}</td>" for value in values)
        lines.append(f'<td title="{escape(row["problem"])}">{label}</td>{columns}')
    heads = ("", "ratio", "at the limit", "fastest peer", "its time", "fastconv", "fastconv reaches")
    yield table_of(heads, lines)


def _speedups(report):
    """A chart for each kind of problem, direction, number of threads and allocator; the first of each
    direction of the networks is open."""
    charts = {}
    for (name, direction, threads, allocator), cell in cells(report).items():
        marks = _marks(report, name, cell)
        if marks:
            first = next(iter(cell.values()))
            kind = charts.setdefault(section(first), {})
            kind.setdefault((direction, allocator, threads), []).append((first["label"] or name, marks))
    if not charts:
        return
    peers = [name for name in _series(report) if name.partition(":")[0] != "fastconv"]
    yield f"<h2>Speed-up, layer by layer</h2><p>{TEXTS['speedups']}</p>{_legend(report, peers)}"
    for number, (kind, by_place) in enumerate(charts.items()):
        yield f"<h3>{SECTIONS[kind]}</h3>"
        seen = set()
        for (direction, allocator, threads), rows in by_place.items():
            title = f"{DIRECTIONS[direction].capitalize()}, {threads_text(threads)}, {ALLOCATORS[allocator]}"
            chart = svg.dots(rows, "peer's time / fastconv's time", title)
            opened = " open" if number == 0 and direction not in seen else ""
            seen.add(direction)
            yield f'<details{opened}><summary>{title}</summary><div class="wide">{chart}</div></details>'


def _marks(report, name, cell):
    """{number of a peer's colour: (ratio, tip)} of one cell."""
    series, marks = _series(report), {}
    bound = at_limit(report, cell)
    for peer, times_ours in ratios(cell).items():
        if peer != "fastest" and not peer.startswith("fastconv"):
            times = f"{milliseconds(cell[peer]['best'])} / {milliseconds(cell['fastconv']['best'])}"
            tip = f"{cell['fastconv']['label'] or name}: {title_of(report, peer)} {times} = {times_ours:.2f}x"
            if bound and peer == RIVAL:
                tip += f", at the limit {ratio(bound)}"
            marks[series[peer]] = times_ours, tip
    return marks


def _rooflines(report):
    """For each dtype, number of threads and direction: what the machine allows, and where the layers are."""
    plots = {}
    for result in report["results"]:
        limit = ceiling(report, result)
        if limit and _on_roofline(report, result):
            kind = plots.setdefault((limit["dtype"], limit["threads"]), (limit, {}))[1]
            kind.setdefault(result["direction"], []).append(result)
    if not plots:
        return
    shown = [name for name in ("fastconv", "torch") if name in _series(report)]
    yield f"<h2>Against the machine's limits</h2><p>{TEXTS['rooflines']}</p>{_legend(report, shown)}"
    for number, (limit, by_direction) in enumerate(plots.values()):
        for direction, found in by_direction.items():
            title = (
                f"{DIRECTIONS[direction].capitalize()}, {threads_text(limit['threads'])}, {limit['dtype']}"
            )
            opened = " open" if number == 0 else ""
            chart = f'<div class="wide">{_roofline(report, limit, title, found)}</div>'
            yield f"<details{opened}><summary>{title}</summary>{chart}</details>"


def _on_roofline(report, result):
    mine = "best" in result and result["flops"] and result["implementation"] in ("fastconv", "torch")
    # What takes microseconds is bound by neither limit but by what a call costs.
    return (
        mine
        and section(result) != "small sizes"
        and result["allocator"] == report["settings"]["allocators"][0]
    )


def _roofline(report, limit, title, found):
    peak, slope, tile = limit["fma_gflops"], limit["copy_gbytes"], limit["tile_gflops"]
    knee = peak / slope
    intensity = [r["flops"] / r["bytes"] for r in found]
    speed = [rates(report, r)["gflops"] for r in found]
    x_range = min(*intensity, knee) / 2, max(*intensity, knee) * 2
    y_range = min(*speed, slope * x_range[0]) / 1.5, max(*speed, peak) * 1.5
    plot = svg.Plot(x_range, y_range, "operations per byte", "GFLOP/s", title, width=760, height=440)
    start = max(x_range[0], y_range[0] / slope)
    series = _series(report)
    dots = zip(found, intensity, speed)
    for r, at, rate in sorted(dots, key=lambda dot: dot[0]["implementation"] == "fastconv"):
        share = 100 * rates(report, r)["peak_share"]
        what = f"{r['label'] or r['problem']}, {title_of(report, r['implementation'])}"
        tip = f"{what}: {rate:.1f} GFLOP/s, {share:.0f} % of the peak, {milliseconds(r['best'])}"
        plot.point(at, rate, series[r["implementation"]], tip)
    plot.edge([(knee, tile), (x_range[1], tile)], f"register tile {tile:.0f}", dashed=True)
    plot.edge([(start, slope * start), (knee, peak), (x_range[1], peak)], f"peak {peak:.0f} GFLOP/s")
    return plot.svg()


def _sweeps(report):
    if not report["sweeps"]:
        return
    shown = {r["implementation"] for sweep in report["sweeps"] for r in sweep["results"] if "best" in r}
    yield f"<h2>Cost as sizes grow</h2><p>{TEXTS['sweeps']}</p>"
    yield _legend(report, [name for name in _series(report) if name in shown])
    for sweep in report["sweeps"]:
        curves = {}
        for r in sweep["results"]:
            if "best" in r:
                curves.setdefault(r["implementation"], []).append((r["value"], 1e3 * r["best"]))
        if curves:
            base = f"{DIRECTIONS[sweep['direction']]} of <code>{escape(sweep['base'])}</code>"
            yield f"<h3>{escape(sweep['axis'].capitalize())}</h3><p>{base.capitalize()}</p>"
            yield f'<div class="wide">{_curves(report, sweep["axis"], curves)}</div>'


def _curves(report, axis, curves):
    xs, ys = zip(*(point for curve in curves.values() for point in curve))
    x_range, y_range = (min(xs) / 1.15, max(xs) * 1.15), (min(ys) / 1.5, max(ys) * 1.5)
    label = AXES.get(axis, axis)
    plot = svg.Plot(x_range, y_range, label, "milliseconds", f"cost against {axis}", sorted(set(xs)))
    for name, curve in curves.items():
        series = _series(report)[name]
        plot.line(sorted(curve), series)
        for value, took in curve:
            plot.point(value, took, series, f"{title_of(report, name)}, {value}: {took:.4g} ms")
    return plot.svg()


def _regret(report):
    found = report["regret"]
    if not found:
        return
    again = ", and where another than the chosen one seemed faster, once more and longer"
    again *= "suspected" in found  # older reports have been less careful
    yield "<h2>Does it choose the right algorithm?</h2>"
    yield f"""<p>fastconv has several algorithms and chooses one by the shape. Over {
        found["count"]
    } random shapes
that are in no list (seed {found["seed"]}), each algorithm was timed in every direction{again}: the
chosen one is within 10 % of the fastest in <b>{100 * found["within"]:.1f} %</b> of {len(found["results"])} cases. Regret
is the time lost to the fastest: median {100 * found["median"]:.1f} %, 95th percentile {
        100 * found["p95"]:.1f} %, worst
{100 * found["worst"]:.0f} %. The worst cases:</p>"""
    rows = []
    for row in found["results"][:15]:
        lost = f"{100 * row['regret']:.1f} %"
        rows.append(
            (row["problem"], DIRECTIONS[row["direction"]], row["threads"], row["chosen"], row["best"], lost)
        )
    heads = ("problem", "direction", "threads", "chosen", "fastest", "regret")
    yield table_of(heads, ("".join(f"<td>{escape(str(value))}</td>" for value in row) for row in rows))


def _numbers(report):
    tables = {}
    for (name, direction, threads, allocator), cell in cells(report).items():
        tables.setdefault((allocator, threads, direction), []).append((name, cell))
    if not tables:
        return
    yield f"<h2>All numbers</h2><p>{TEXTS['numbers']}</p>"
    others = [name for name in _series(report) if name != "fastconv"]
    own = (
        "problem",
        "best",
        "median",
        "GFLOP/s",
        "of peak",
        "of limit",
        "GB/s",
        "error",
        "scratch",
        "memory",
        "algorithm",
    )
    heads = (*own, *(title_of(report, name) for name in others))
    for (allocator, threads, direction), group in tables.items():
        rows = []
        for name, cell in group:
            label = next(iter(cell.values()))["label"] or name
            columns = "".join(f"<td>{_time_cell(cell.get(other))}</td>" for other in others)
            first = f'<td title="{escape(name)}">{escape(label)}</td>'
            rows.append(first + _own_cells(report, cell.get("fastconv", {})) + columns)
        title = f"{DIRECTIONS[direction].capitalize()}, {threads_text(threads)}, {ALLOCATORS[allocator]}"
        yield f"<details><summary>{title}</summary>{table_of(heads, rows)}</details>"


def _own_cells(report, own):
    """The best time and what is known about it."""
    if "best" not in own:
        return f"<td>{_time_cell(own)}</td>" + "<td></td>" * 9
    rate, bound = rates(report, own), limit_of(report, own)
    share = f"{100 * bound[0] / own['best']:.0f} %" if bound else ""
    values = (
        milliseconds(own["best"]),
        milliseconds(own["median"]),
        f"{rate['gflops']:.1f}" if own["flops"] else "",
        f"{100 * rate['peak_share']:.0f} %" if rate["peak_share"] else "",
        f'<span title="{milliseconds(bound[0])}: {bound[1]}">{share}</span>' if bound else "",
        f"{rate['gbytes']:.1f}",
        f"{own['error_max']:.1e}" if "error_max" in own else "",
        f"{own['scratch_bytes'] / 1e6:.2f} MB" if "scratch_bytes" in own else "",
        f"{own['peak_bytes'] / 1e6:.1f} MB" if own.get("peak_bytes") is not None else "",
        own.get("algorithm", ""),
    )
    return "".join(f"<td>{value}</td>" for value in values)


def _time_cell(result):
    if not result:
        return "-"
    told = []
    if "best" in result:
        told.append(f"median {milliseconds(result['median'])}")
    if "error_max" in result:
        told.append(f"error {result['error_max']:.1e}")
    if result.get("peak_bytes") is not None:
        told.append(f"memory {result['peak_bytes'] / 1e6:.1f} MB")
    return time_cell(result, ", ".join(told))


def _method(report):
    seconds = report["settings"].get("seconds", 0)
    yield f"<h2>How this was measured</h2><p>{METHOD.format(seconds=seconds)}</p>"
    yield f"<dl>{''.join(f'<dt>{word}</dt><dd>{text}</dd>' for word, text in GLOSSARY.items())}</dl>"
    rows = []
    for name, entry in report["implementations"].items():
        versions = ", ".join(f"{package} {version}" for package, version in entry["versions"].items())
        told = f"left out: {entry['missing']}" if entry["missing"] else versions
        runtimes = ", ".join(entry["openmp"]) or "none"
        texts = title_of(report, name), told, runtimes
        rows.append("".join(f"<td>{escape(text)}</td>" for text in texts))
    yield f"<h3>Who took part</h3>{table_of(('implementation', 'versions', 'OpenMP runtime loaded'), rows)}"
    rows = [
        f"<td>{e['dtype']}, {threads_text(e['threads'])}, {e['isa']}</td>"
        f"<td>{e['fma_gflops']:.0f} GFLOP/s</td>"
        f"<td>{e['tile_gflops']:.0f} GFLOP/s</td><td>{e['copy_gbytes']:.0f} GB/s</td>"
        for e in report["ceilings"]
    ]
    yield f"<h3>The machine</h3>{table_of(('', 'multiply-adds', 'register tile', 'copying'), rows)}"
    machine, own = report["machine"], report["fastconv"]
    facts = f"{machine['system']}, Python {machine['python']}, fastconv compiled by {own['compiler']}"
    yield f"<p>{escape(facts)}, {'with OpenMP' if own['openmp'] else 'without threads'}.</p>"
