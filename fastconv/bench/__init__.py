"""The benchmark: fastconv and its peers side by side on real layers, checked before they are timed.

    from fastconv import bench
    report = bench.run(bench.select(["core"]), implementations=["fastconv", "torch"])
    print(bench.table(report)); bench.save(report, "now.json"); bench.write_html(report, "now.html")

The same from the command line: ``fastconv bench --layers core --json now.json --html now.html``. All layers,
threads and ways to allocate, for the table in a document:

    fastconv bench --layers all --implementations torch torch_channels_last onnxruntime --allocator both \\
        --seconds 0.1 --json whole.json --html whole.html --markdown whole.md

It may be cut by --layers, --directions, --threads or --allocator into parts whose files become one again:
``fastconv bench --report a.json b.json --html whole.html``.

A GPU against the CPU, and from which size on it pays (``fastconv bench --device cpu,cuda``):

    layers = bench.select(["core", "networks"])
    report = bench.run(layers, ["fastconv"], threads=(1, 2))
    bench.run_on_device(layers, report=report)
    bench.crossings(report, ["batch", "conv2d:n1c3h*w*k16r3s3_st1p1d1g1_f32=8,32,128"], threads=(1, 2))
    bench.write_html(report, "gpu.html")

What a report holds is told by `bench.SCHEMA`. Rooms: problems (what is measured; networks: whole ones),
expected (what is right), peers (who measures up), worker (their processes), timing (turns and clocks), peak
(the machine's ceilings), limits (the least time they allow), report (numbers), tables (as text), sweep
(costs over sizes, regret of the choice), html (the page, of page_parts). Of a GPU: device (runs), on_device
(clocks), gains (numbers), device_tables, device_html.
"""

import importlib

_HOMES = {
    "compare": "report",
    "comparison_table": "tables",
    "crossings": "device",
    "headline": "report",
    "load": "report",
    "markdown": "tables",
    "merge": "report",
    "save": "report",
    "slowest": "report",
    "summary": "report",
    "table": "tables",
    "SCHEMA": "report",
    "parse": "problems",
    "select": "problems",
    "groups": "problems",
    "run": "timing",
    "run_on_device": "device",
    "regret": "sweep",
    "sweeps": "sweep",
    "write_html": "html",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOMES})
