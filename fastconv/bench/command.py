"""``fastconv bench``: its options, and what they ask of the other rooms."""

import os
import sys
from pathlib import Path

DIRECTIONS = ("forward", "backward_input", "backward_weight", "backward", "loss", "step")


def add_options(parser):
    """Declare the options of the command on an argparse parser."""
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--layers", nargs="+", metavar="WORD",
        help="groups, labels (see --list) or one-line names, such as conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32"
        " (default: core, twenty layers of well-known networks; with a GPU also networks, whole ones)",
    )  # fmt: skip
    what.add_argument(
        "--device", type=_devices, default=("cpu",), metavar="D",
        help="cpu (default), cuda, or cpu,cuda: a GPU against the processor, warm, cold and with transfers",
    )  # fmt: skip
    what.add_argument("--directions", nargs="+", choices=DIRECTIONS, metavar="D", help=", ".join(DIRECTIONS))
    what.add_argument(
        "--implementations", nargs="+", metavar="I",
        help="names (see --list), 'algorithms' (each of fastconv's own by name) or 'all'",
    )  # fmt: skip
    what.add_argument("--threads", nargs="+", type=_positive, metavar="N", help="(default: 1, and all cores)")
    what.add_argument(
        "--allocator", choices=("warm", "as_called", "both"), default="warm",
        help="warm: the C library keeps freed memory, for everybody, so that kernels are compared (default);"
        " as_called: its defaults",
    )  # fmt: skip
    what.add_argument(
        "--isa", choices=("baseline", "avx2", "avx512"),
        help="cap of the instructions, for PyTorch too (default: FASTCONV_ISA, or none)",
    )  # fmt: skip
    what.add_argument(
        "--seconds", type=float, metavar="S", help="for each implementation and cell (default: 0.5)"
    )
    what.add_argument("--quick", action="store_true", help="a minute: small layers, one thread, short bursts")
    more = parser.add_argument_group("further measurements")
    more.add_argument(
        "--sweeps", nargs="*", metavar="AXIS", help="cost against batch, channels, size, ... (all, or some)"
    )
    more.add_argument(
        "--regret", action="store_true", help='what "auto" loses to the best algorithm, instead of layers'
    )
    more.add_argument(
        "--count", type=_positive, default=60, help="random shapes of --regret (default: %(default)s)"
    )
    more.add_argument("--seed", type=int, default=0, help="of --regret (default: %(default)s)")
    more.add_argument(
        "--crossings", nargs="+", metavar="AXIS",
        help="with a GPU: the size from which on it pays, over batch, size, network (default: all), none, or"
        " one's own: conv2d:n*c6h14w14k16r5s5_st1p0d1g1_f32=1,8,64",
    )  # fmt: skip
    out = parser.add_argument_group("results (a table is always printed)")
    out.add_argument("--json", metavar="FILE", help="write the report; --schema tells what it holds")
    out.add_argument("--html", metavar="FILE", help="write a page with plots")
    out.add_argument("--markdown", metavar="FILE", help="write the table of the headline for a document")
    out.add_argument(
        "--compare", metavar="OLD.json", help="tell what became slower; exit status 1 if something did"
    )
    out.add_argument(
        "--tolerance", type=float, default=10, metavar="PERCENT", help="of --compare (default: 10)"
    )
    out.add_argument(
        "--report", nargs="+", metavar="FILE.json",
        help="measure nothing, take this report instead; several, measured in parts, become one",
    )  # fmt: skip
    out.add_argument("--list", action="store_true", help="print groups, layers and implementations")
    out.add_argument("--schema", action="store_true", help="print what a report holds")
    out.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _positive(text):
    import argparse

    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"need an integer of at least 1, got {text!r}")
    return int(text)


def _devices(text):
    import argparse

    words = tuple(dict.fromkeys(text.split(",")))
    if not set(words) <= {"cpu", "cuda"}:
        raise argparse.ArgumentTypeError(f"need cpu, cuda or cpu,cuda, got {text!r}")
    return words


def run(options):
    """Carry the command out; returns whether all is well: nothing of fastconv's wrong, nothing slower.

    Raises ValueError for options, DeviceError where a GPU is asked for and there is none.
    """
    from . import html, report, tables

    if options.schema:
        print(report.SCHEMA, end="")
        return True
    if options.list:
        print(_listing())
        return True
    old = report.load(options.compare) if options.compare else None
    files = options.json, options.html, options.markdown
    for path in filter(None, files):  # found out now and not after an hour
        if not Path(path).absolute().parent.is_dir():
            raise ValueError(f"bench: there is no folder {Path(path).absolute().parent} to write {path} to")
    if options.report:
        result = report.merge([report.load(path) for path in options.report])
    else:
        result = report.new_report()
    try:
        if not options.report:
            _measure(options, result)
    finally:  # what an interrupted run has measured is worth keeping
        if options.json:
            report.save(result, options.json)
    if options.html:
        html.write_html(result, options.html)
    if options.markdown:
        Path(options.markdown).write_text(tables.markdown(result), encoding="utf-8")
    print(tables.table(result))
    if result["regret"]:
        from .sweep import regret_table

        print(regret_table(result["regret"]))
    every = [*result["results"], *(result["device"] or {}).get("results", ())]
    own = (r for r in every if r["implementation"].startswith("fastconv"))
    well = not any("failed" in r or "wrong" in r for r in own)
    if old is None:
        return well
    rows = report.compare(old, result, options.tolerance / 100)
    print(f"\nagainst {options.compare}:\n{tables.comparison_table(rows)}")
    if old["machine"]["processor"] != result["machine"]["processor"]:
        print(f"(that was another machine: {old['machine']['processor']})")
    return well and not any(row["verdict"] == "slower" for row in rows)


def _measure(options, report):
    """Fill the report with what the options ask for."""
    from . import device, peers, problems, sweep
    from .timing import SECONDS, cores, run

    on_device = "cuda" in options.device
    words = options.layers or (["small", "lenet"] if options.quick else ["core"])
    if on_device and not options.layers:
        words += ["net_lenet5"] if options.quick else ["networks"]
    layers = problems.select(words)
    names = peers.chosen(options.implementations)
    for axis in options.sweeps or ():
        sweep.check_axis(axis)
    crossings = _crossings(options)
    settings = {
        "threads": options.threads or ((1,) if options.quick else tuple(sorted({1, cores()}))),
        "allocators": ("warm", "as_called") if options.allocator == "both" else (options.allocator,),
        "seconds": options.seconds or (0.05 if options.quick else SECONDS),
        "isa": options.isa or os.environ.get("FASTCONV_ISA", "").strip() or None,
        "tell": (lambda line: None)
        if options.quiet
        else (lambda line: print(line, file=sys.stderr, flush=True)),
    }
    if on_device:  # before hours go by
        device.need_device()
    if options.regret:
        report["regret"] = sweep.regret(options.count, options.seed, **settings)
        report["settings"].update({key: settings[key] for key in ("allocators", "seconds", "isa")})
        return
    common = {key: settings[key] for key in ("seconds", "isa", "tell")}
    if options.layers or options.sweeps is None:
        if "cpu" in options.device:
            run(layers, names, options.directions, report=report, **settings)
        if on_device:
            there = peers.chosen_device(options.implementations)
            device.run_on_device(layers, there, options.directions, report=report, **common)
    if options.sweeps is not None:
        axes = options.sweeps or tuple(sweep.AXES)
        sweep.sweeps(report, axes, names, quick=options.quick, **settings)
    if crossings:
        how = {"threads": settings["threads"], "quick": options.quick, **common}
        device.crossings(report, crossings, **how)
    if on_device:  # the CPU may have had no part in it
        for key in ("threads", "allocators", "seconds", "isa"):
            report["settings"].setdefault(key, settings[key])


def _crossings(options):
    """The words of --crossings, or its default; ValueError for wrong ones."""
    from . import device

    if "cuda" not in options.device:
        if options.crossings:
            raise ValueError("bench: --crossings compares with a GPU: needs --device cpu,cuda")
        return ()
    if options.regret:
        raise ValueError("bench: --regret is of the CPU's algorithms: needs --device cpu")
    words = options.crossings or tuple(device.CROSSINGS)
    if "none" in words:
        return ()
    for word in words:
        device.axis(word)
    return words


def _listing():
    """Groups with their layers, and implementations with what they lack."""
    from . import peers, problems
    from .layers import GROUPS

    lines = []
    for group, entries in GROUPS.items():
        lines.append(group)
        lines += [f"  {label:<22}{name}" for label, name in entries.items()]
    made = {name: labels for name, labels in problems.groups().items() if name not in GROUPS}
    lines += [f"{name}: {' '.join(labels)}" for name, labels in made.items()]
    for label, name in problems.whole_networks().items():
        lines.append(f"  {label:<22}{name}")
    lines.append("\nimplementations (* measured by default, on a GPU with --device cpu,cuda)")
    for name in (*peers.names(), *peers.device_names()):
        missing = peers.get(name).missing()
        star = "*" if name in (*peers.default(), *peers.device_names()) else " "
        lines.append(f" {star}{name:<26}{peers.get(name).title}{f' ({missing})' if missing else ''}")
    return "\n".join(lines)
