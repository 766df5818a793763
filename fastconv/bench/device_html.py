"""The GPU's part of the page: when it pays, what a call consists of, how it compares, whether it is right."""

from html import escape

from . import gains, svg
from .page_parts import legend, milliseconds, spread_cell, table_of, threads_text, time_cell, title_of
from .prose import CROSSINGS, DEVICE_GLOSSARY, DEVICE_TEXTS, DIRECTIONS, SECTIONS

KINDS = {"warm": "arrays stay on the GPU", "transfers": "arrays come from the processor and go back"}
PARTS = {"in": "copying to the GPU", "compute": "computing", "out": "copying back"}


def parts(report):
    """Pieces of HTML; none for a report without a device."""
    if report["device"] is None:
        return
    for make in (_head, _short, _crossings, _by_layer, _where_time_goes, _peers, _numbers, _words):
        yield from make(report)


def _head(report):
    there = report["device"]
    facts = there["name"]
    if not there["simulator"]:
        memory = f"{there['memory_bytes'] / 2**30:.0f} GB"
        facts += f", compute capability {there['compute_capability']}, {memory}"
    yield f'<h2 id="gpu">Processor or GPU?</h2><p>{escape(facts)}. {DEVICE_TEXTS["what"]}</p>'
    if there["simulator"]:
        yield f"<p><b>{DEVICE_TEXTS['simulator']}</b></p>"


def _short(report):
    rows = gains.summary(report)
    if not rows:
        return
    yield f"<p>{DEVICE_TEXTS['short']}</p>"
    lines = []
    for row in rows:
        columns = "".join(spread_cell(row.get(kind)) for kind in KINDS)
        lines.append(f"<td>{SECTIONS[row['section']]}, {threads_text(row['threads'])}</td>{columns}")
    yield table_of(("processor's time / GPU's time", *KINDS.values()), lines, "headline")


def _crossings(report):
    found = report["device"]["crossings"]
    if not found:
        return
    yield f"<h3>From which size on the GPU pays</h3><p>{DEVICE_TEXTS['crossings']}</p>"
    for crossing in found:
        curves = _curves(crossing)
        points = [point for points in curves.values() for point in points]
        if not points:
            continue
        base = f"<code>{escape(crossing['base'])}</code>"
        what, axis = CROSSINGS.get(crossing["axis"], ("Sizes given by hand", "size"))
        direction = DIRECTIONS[crossing["direction"]]
        yield f"<p><b>{what}</b>: {direction} of {base}, with * from left to right.</p>"
        yield legend(dict.fromkeys(curves))
        xs, ys = zip(*points)
        low, high = min(xs), max(xs)
        ranges = (low / 1.15, high * 1.15), (min(ys) / 1.5, max(ys) * 1.5)
        name = f"milliseconds against {crossing['axis']}"
        plot = svg.Plot(*ranges, axis, "milliseconds", name, sorted(set(xs)), width=760)
        for number, (label, curve) in enumerate(curves.items()):
            plot.line(curve, number)
            for x, y in curve:
                plot.point(x, y, number, f"{label}, {x}: {y:.4g} ms")
        sentences = []
        for row in crossing["pays"]:
            if row["word"] == "from" and row["implementation"] == gains.OURS:
                plot.mark(row["at"], f"{row['at']:.3g}")
            moved = KINDS["transfers" if row["transfers"] else "warm"]
            who = f"{title_of(report, row['implementation'])}, {moved}"
            sentence = f"{who}: pays against {threads_text(row['threads'])} <b>{gains.told(row)}</b>"
            sentences.append(f"<li>{sentence}</li>")
        yield f'<div class="wide">{plot.svg()}</div><ul>{"".join(sentences)}</ul>'


def _curves(crossing):
    """label -> [(size, milliseconds)], the processor's first."""
    curves = {}
    for r in crossing["cpu"]:
        if "best" in r:
            label = f"processor, {threads_text(r['threads'])}"
            curves.setdefault(label, []).append((r["value"], 1e3 * r["best"]))
    for kind, field in gains.KINDS.items():
        for r in crossing["device"]:
            if field in r and r["implementation"] == gains.OURS:
                curves.setdefault(f"GPU, {KINDS[kind]}", []).append((r["value"], 1e3 * r[field]))
    return {label: sorted(points) for label, points in curves.items()}


def _by_layer(report):
    """A chart a direction: how many times faster the GPU is than all threads of the processor measured."""
    charts = {}
    for row in gains.gains(report):
        threads, by_kind = max(row["gains"].items())
        label = row["label"] or row["problem"]
        marks = {
            number: (by_kind[kind], f"{label}, {told}: {by_kind[kind]:.3g}x")
            for number, (kind, told) in enumerate(KINDS.items())
        }
        charts.setdefault((row["direction"], threads), []).append((label, marks))
    if not charts:
        return
    yield f"<h3>Layer by layer</h3><p>{DEVICE_TEXTS['layers']}</p>{legend(dict.fromkeys(KINDS.values()))}"
    for (direction, threads), rows in charts.items():
        head = f"{DIRECTIONS[direction].capitalize()}, GPU against {threads_text(threads)}"
        sides = ("processor is faster", "GPU is faster")
        chart = svg.dots(rows, "processor's time / GPU's time", head, sides=sides)
        yield f'<details open><summary>{head}</summary><div class="wide">{chart}</div></details>'


def _where_time_goes(report):
    charts = {}
    for (name, direction), cell in gains.cells(report).items():
        own = cell.get(gains.OURS, {})
        if "best" in own:
            label = own["label"] or name
            shares = [
                (1e3 * value, f"{label}, {PARTS[part]}: {milliseconds(value)}")
                for part, value in gains.share(own).items()
            ]
            charts.setdefault(direction, []).append((label, shares))
    if not charts:
        return
    there = report["device"]
    rates = (
        f"Large arrays go to the GPU at {there['to_device_gbytes']:.3g} GB/s and come back at"
        f" {there['to_host_gbytes']:.3g} GB/s ({there['pinned_to_device_gbytes']:.3g} and"
        f" {there['pinned_to_host_gbytes']:.3g} GB/s from and to page-locked memory); on the GPU they are"
        f" copied at {there['copy_gbytes']:.4g} GB/s. The smallest call takes"
        f" {1e6 * there['call_seconds']:.3g} us, or"
        f" {1e6 * there['answer_seconds']:.3g} us when its result is waited for."
    )
    yield f"<h3>Where the time goes</h3><p>{DEVICE_TEXTS['where']} {rates}</p>"
    yield legend(dict.fromkeys(PARTS.values()))
    for number, (direction, rows) in enumerate(charts.items()):
        head = DIRECTIONS[direction].capitalize()
        chart = svg.shares(rows, "share of the time, and milliseconds of all three", head)
        opened = " open" if number == 0 else ""
        yield f'<details{opened}><summary>{head}</summary><div class="wide">{chart}</div></details>'


def _peers(report):
    found = gains.against_peers(report)
    if not found:
        return
    yield f"<h3>Against other libraries on the GPU</h3><p>{DEVICE_TEXTS['peers']}</p>"
    peers = list(dict.fromkeys(theirs for _, theirs in found))
    ours = list(dict.fromkeys(ours for ours, _ in found))
    lines = []
    for name in ours:
        columns = "".join(spread_cell(found.get((name, peer))) for peer in peers)
        lines.append(f"<td>{escape(title_of(report, name))}</td>{columns}")
    yield table_of(("peer's time / ours", *(title_of(report, peer) for peer in peers)), lines, "headline")
    yield from _peer_charts(report, peers)


def _peer_charts(report, peers):
    """A chart for each of fastconv's precisions and each direction."""
    charts, cells = {}, gains.cells(report)
    for ours, theirs, name, direction, value in gains.peer_ratios(report):
        label = cells[name, direction][ours]["label"] or name
        times = " / ".join(milliseconds(cells[name, direction][n]["best"]) for n in (theirs, ours))
        tip = f"{label}: {title_of(report, theirs)} {times} = {value:.3g}x"
        rows = charts.setdefault((ours, direction), {})
        rows.setdefault(label, {})[peers.index(theirs)] = value, tip
    yield legend(title_of(report, peer) for peer in peers)
    for (ours, direction), rows in charts.items():
        head = f"{DIRECTIONS[direction].capitalize()}, {title_of(report, ours)}"
        chart = svg.dots(list(rows.items()), "peer's time / fastconv's time", head)
        opened = " open" if ours == gains.OURS else ""
        yield f'<details{opened}><summary>{escape(head)}</summary><div class="wide">{chart}</div></details>'


def _numbers(report):
    times, tables = gains.cpu_times(report), {}
    for (name, direction), cell in gains.cells(report).items():
        tables.setdefault(direction, []).append((name, cell))
    if not tables:
        return
    counts = sorted({threads for by_threads in times.values() for threads in by_threads})
    names = dict.fromkeys(name for cell in gains.cells(report).values() for name in cell)
    names = [
        name for name in names if report["implementations"][name]["missing"] is None and name != gains.OURS
    ]
    own = (
        "warm",
        "with transfers",
        "first call",
        "cold",
        "to GPU",
        "back",
        "ulp, most",
        "ulp of size",
        "error",
    )
    heads = ("problem", *(f"processor, {threads_text(n)}" for n in counts), *own, "processor's error")
    heads += (*(f"{title_of(report, name)}, warm" for name in names), "algorithm")
    yield f"<h3>All numbers of the GPU, and how well it agrees</h3><p>{DEVICE_TEXTS['numbers']}</p>"
    for direction, rows in tables.items():
        lines = []
        for name, cell in rows:
            values = _row(cell.get(gains.OURS, {}), times.get((name, direction), {}), counts)
            values += [_other(cell.get(other, {})) for other in names]
            values.append(escape(cell.get(gains.OURS, {}).get("algorithm", "")))
            label = next(iter(cell.values()))["label"] or name
            columns = "".join(f"<td>{value}</td>" for value in values)
            lines.append(f'<td title="{escape(name)}">{escape(label)}</td>{columns}')
        name = DIRECTIONS[direction].capitalize()
        yield f"<details><summary>{name}</summary>{table_of(heads, lines)}</details>"


def _row(own, here, counts):
    found = [here.get(n) for n in counts]
    found += [own.get(key) for key in ("best", "transfers_best", "first", "cold")]
    values = [milliseconds(value) if value else "-" for value in found]
    if "best" not in own and own:
        values[len(counts)] = _other(own)
    for way in ("in", "out"):
        rate = own[f"{way}_bytes"] / own[f"{way}_seconds"] / 1e9 if f"{way}_seconds" in own else None
        values.append("-" if rate is None else f"{rate:.2g} GB/s")
    whole, size, *errors = (own.get(key) for key in ("ulp_max", "ulp_size", "error_max", "cpu_error_max"))
    values.append("-" if whole is None else f"{whole:,}")
    values.append("-" if size is None else f"{size:.3g}")
    return values + ["-" if error is None else f"{error:.1e}" for error in errors]


def _other(result):
    told = ""
    if "best" in result:
        told = f"with transfers {milliseconds(result['transfers_best'])}, error {result['error_max']:.1e}"
    return time_cell(result, told)


def _words(report):
    yield f"<dl>{''.join(f'<dt>{word}</dt><dd>{text}</dd>' for word, text in DEVICE_GLOSSARY.items())}</dl>"
