"""Beyond single layers: what a size costs as it grows, and what "auto" loses to the best algorithm.

Both run through `timing.run` and so are measured like everything else.
"""

import numpy as np

import fastconv

from . import peers, problems
from .layers import GROUPS
from .report import new_report
from .timing import SECONDS, cores, run

# A 3x3 layer in the middle of a network, and one of its sizes after the other.
BASE = {"n": 8, "c": 64, "h": 28, "k": 64, "r": 3}
AXES = {
    "batch": {"n": (1, 2, 4, 8, 16, 32)},
    "channels": {"ck": (4, 8, 16, 32, 64, 128, 256)},
    "size": {"h": (7, 14, 28, 56, 112)},
    "kernel": {"r": (1, 3, 5, 7, 9, 11)},
    "threads": {"threads": None},
}


def _named(n, c, h, k, r):
    return f"conv2d:n{n}c{c}h{h}w{h}k{k}r{r}s{r}_st1p{r // 2}d1g1_f32"


def check_axis(axis):
    """Raises ValueError for an unknown axis."""
    if axis not in AXES:
        raise ValueError(f"bench: axis {axis!r} is unknown, need one of {', '.join(AXES)}")


def sweeps(report, axes=tuple(AXES), implementations=None, direction="forward", quick=False, **settings):
    """Measure along axes and append to report["sweeps"], for each axis:

    axis, direction, base (the one-line name that the axis starts from), results (as in a report, with
    "value"). settings: of `timing.run`; the largest of its `threads` is used, on the axis "threads" every
    count.
    """
    most = max(settings.pop("threads", (cores(),)))
    for axis in axes:
        check_axis(axis)
        ((letters, values),) = AXES[axis].items()
        counts = tuple(n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores()) if axis == "threads" else (most,)
        values = counts if axis == "threads" else values[::2] if quick else values
        names = {}
        for value in values:
            sizes = {} if axis == "threads" else {letter: value for letter in letters}
            names.setdefault(_named(**{**BASE, **sizes}), value)
        part = run(
            [problems.parse(name) for name in names],
            implementations,
            (direction,),
            threads=counts,
            **settings,
        )
        for result in part["results"]:
            result["value"] = result["threads"] if axis == "threads" else names[result["problem"]]
        report["sweeps"].append(
            {"axis": axis, "direction": direction, "base": _named(**BASE), "results": part["results"]}
        )
        _merge(report, part)
    return report


def _merge(report, part):
    """What a partial run found out about the machine and the implementations."""
    for name, entry in part["implementations"].items():
        report["implementations"].setdefault(name, entry)
    known = {(entry["dtype"], entry["threads"]) for entry in report["ceilings"]}
    report["ceilings"] += [e for e in part["ceilings"] if (e["dtype"], e["threads"]) not in known]
    for key, value in part["settings"].items():
        report["settings"].setdefault(key, value)


# -- regret --------------------------------------------------------------------------------------------------

WITHIN = 0.1  # "as good as the best"
LONGER = 4  # times as long is a miss timed again: on a shared machine the first time may have been bad luck
FLOPS = (1e5, 4e9)  # of a shape in the sweep: more than call overhead, less than a minute each


def shapes(count, seed):
    """One-line names of random convolutions, float32, that are in no list; the same for the same seed."""
    rng, listed, found = np.random.default_rng(seed), {n for g in GROUPS.values() for n in g.values()}, {}

    def size(low, high):
        return int(round(np.exp(rng.uniform(np.log(low), np.log(high)))))

    while len(found) < count:
        n, c, k = size(1, 16), size(1, 512), size(1, 512)
        h, w = (size(5, 160),) * 2 if rng.random() < 0.8 else (size(5, 160), size(5, 160))
        r, s = (int(rng.choice([1, 1, 2, 3, 3, 3, 4, 5, 7, 11])),) * 2
        if rng.random() < 0.1:
            r, s = 1, int(rng.choice([3, 5, 7]))
        stride = int(rng.choice([1, 1, 1, 2, 2, 4]))
        dilation = int(rng.choice([1, 1, 1, 1, 1, 1, 1, 2]))
        groups = 1
        if rng.random() < 0.15:  # grouped, half of them one channel a group
            groups = c if rng.random() < 0.5 else int(rng.choice([2, 4, 8]))
            c = max(c // groups, 1) * groups
            k = max(k // groups, 1) * groups
        full = max(r, s) > 1 and rng.random() < 0.7
        pads = [dilation * (f // 2) if full else 0 for f in (r, s)]
        padding = str(pads[0]) if pads[0] == pads[1] else "x".join(map(str, pads))
        name = f"conv2d:n{n}c{c}h{h}w{w}k{k}r{r}s{s}_st{stride}p{padding}d{dilation}g{groups}_f32"
        try:
            problem = problems.parse(name)
        except ValueError:  # the kernel does not fit the image
            continue
        if FLOPS[0] <= problem.flops("forward") <= FLOPS[1] and name not in listed:
            found[name] = None
    return list(found)


def regret(count=60, seed=0, directions=problems.Convolution.directions, tell=lambda line: None, **settings):
    """How much slower "auto" is than the best algorithm it may choose, over random shapes: a dictionary.

    seed, count; within: the share of cases in which the chosen algorithm is at most 10 % slower than the
    best; median, p95, worst of the regret (chosen time / best time - 1); suspected: how many cases were
    slower than that at first: they are timed a second time, `LONGER` times as long, and that counts; results:
    problem, direction, threads, allocator, chosen, best, regret, times (algorithm -> seconds), and of those
    timed twice first (the first regret). Algorithms whose scratch grows with the batch are not for "auto" to
    choose, and left out. settings: threads, seconds, allocators, isa, as in `timing.run`.
    """
    chosen = [problems.parse(name) for name in shapes(count, seed)]

    def measure(problems, directions, **settings):
        part = run(problems, peers.algorithms(), directions, tell=tell, report=new_report(), **settings)
        return _cases(part, problems, tell)

    rows = measure(chosen, directions, **settings)
    suspected = {key: row for key, row in rows.items() if row["regret"] > WITHIN}
    longer = {**settings, "seconds": LONGER * settings.get("seconds", SECONDS)}
    for direction in directions:
        names = {key[0] for key in suspected if key[1] == direction}
        if names:
            tell(f"{len(names)} problems where another algorithm seemed better, {direction}: once more")
            again = measure([p for p in chosen if p.name in names], (direction,), **longer)
            for key in suspected.keys() & again.keys():
                rows[key] = {**again[key], "first": suspected[key]["regret"]}
    values = np.array([row["regret"] for row in rows.values()])
    return {
        "seed": seed,
        "count": count,
        "within": float(np.mean(values <= WITHIN)),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "worst": float(values.max()),
        "suspected": len(suspected),
        "results": sorted(rows.values(), key=lambda row: -row["regret"]),
    }


def _cases(part, chosen, tell):
    """(problem, direction, threads, allocator) -> what was lost there, of a run over all algorithms."""
    parsed, cases = {problem.name: problem for problem in chosen}, {}
    for result in part["results"]:
        key = result["problem"], result["direction"], result["threads"], result["allocator"]
        if "best" in result:
            cases.setdefault(key, {})[result["implementation"].partition(":")[2]] = result["best"]
    rows = {}
    for (name, direction, threads, allocator), times in cases.items():
        problem = parsed[name]
        allowed = {a: t for a, t in times.items() if _bounded(problem, direction, a)}
        auto = _plan(problem, direction, "auto").algorithm
        if auto not in allowed:
            tell(f"no time of {auto}, which auto chooses: {name} {direction}, {threads} threads")
            continue
        best = min(allowed, key=allowed.get)
        rows[name, direction, threads, allocator] = {
            "problem": name,
            "direction": direction,
            "threads": threads,
            "allocator": allocator,
            "chosen": auto,
            "best": best,
            "regret": allowed[auto] / allowed[best] - 1,
            "times": times,
        }
    return rows


def _op(op, direction):
    return op if direction == "forward" else f"{op}_{direction}"


def _plan(problem, direction, algorithm, batch=None):
    x_shape = problem.x_shape if batch is None else (batch, *problem.x_shape[1:])
    arrays = (problems.hidden(shape, problem.dtype) for shape in (x_shape, problem.weight_shape))
    return fastconv.plan(_op(problem.op, direction), *arrays, **problem.options, algorithm=algorithm)


def _bounded(problem, direction, algorithm):
    """Whether the scratch of an algorithm is the same for a larger batch."""
    few, many = (_plan(problem, direction, algorithm, batch).scratch_bytes for batch in (8, 64))
    return few == many


def regret_table(result, worst=10):
    """The regret as text: shares, and the worst cases."""
    lines = [
        f'"auto" is within {100 * WITHIN:.0f} % of the best algorithm in {100 * result["within"]:.1f} % of'
        f" {len(result['results'])} cases ({result['count']} random shapes, seed {result['seed']});"
        f" regret: median {100 * result['median']:.1f} %, 95th percentile {100 * result['p95']:.1f} %,"
        f" worst {100 * result['worst']:.0f} %"
    ]
    if "suspected" in result:  # older reports have been less careful
        lines[0] += (
            f" ({result['suspected']} cases seemed to lose more than {100 * WITHIN:.0f} % at first: they were"
            f" timed again, {LONGER} times as long, which counts)"
        )
    for row in result["results"][:worst]:
        if row["regret"] > 0:
            lines.append(
                f"  {100 * row['regret']:6.1f} %  {row['problem']} {row['direction']}, {row['threads']}T:"
                f" chose {row['chosen']}, best {row['best']}"
            )
    return "\n".join(lines)
