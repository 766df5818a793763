"""Fit the costs by which "auto" chooses algorithms of convolution: `python bench/fit_costs.py times.jsonl`.

Times every algorithm side by side, on one thread, on random shapes that are in no list of the benchmark, and
keeps the times in the file, one line a problem and direction; what is there already is not timed again, and
an interrupted run goes on where it was. Then fits the costs of the steps that `fastconv._cpu.costs` counts
and, with --write, puts them into `fastconv/_cpu/step_costs.py`. Times of the same case in several files (or
lines) count as the best of them: on a busy machine a second round makes a better fit. Needs SciPy.

Times are those of the process and stand still while others have the core. Fitted are ratios of the
algorithms' times on one problem, which are what a choice depends on; the absolute times count only as far as
the ratios leave the costs open. `fastconv bench --regret --seed S`, with a seed that was not fitted to, tells
how good the choice has become.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import numpy as np

import fastconv
from fastconv._cpu import costs
from fastconv._cpu.choice import DIRECTIONS as TABLES
from fastconv._cpu.choice import cheapest
from fastconv.bench import problems, sweep

DIRECTIONS = tuple(TABLES.values())
TARGET = Path(fastconv.__file__).parent / "_cpu" / "step_costs.py"
SEEDS = tuple(range(101, 111))  # of shapes as `fastconv bench --regret` draws them, `COUNT` of each
COUNT = 120
RARE = {"rare": 1001, "tiny": 2001}  # seeds of those that it draws seldom or never
WITHIN = 1.1  # of the best: what counts as well chosen
ROUNDS, SECONDS, SAMPLE = 6, 0.04, 1.5e-4  # at least so many; of each algorithm; of one sample
HOPELESS = 1.8  # times the best: after three rounds worth no more of them
KEPT = 0.01  # share of an estimate that a step has at least once, or it is left out


# -- shapes --------------------------------------------------------------------------------------------------


def rare(kind, count, seed):
    """One-line names of random problems that `sweep.shapes` draws seldom or never.

    "rare": signals, volumes and planes with filters of their own; "tiny": of which the call is a good part.
    """
    rng, found = np.random.default_rng(seed), {}

    def size(low, high):
        return int(round(np.exp(rng.uniform(np.log(low), np.log(high)))))

    def one_of(*values):
        return int(rng.choice(values))

    while len(found) < count:
        which = kind if kind == "tiny" else rng.choice(["signal", "volume", "planes", "planes"])
        n, c, k, stride, dilation = (
            size(1, 16),
            size(1, 256),
            size(1, 256),
            one_of(1, 1, 1, 2),
            one_of(1, 1, 1, 2),
        )
        if which == "signal":
            s, groups = one_of(1, 2, 3, 5, 9, 15, 31), c if rng.random() < 0.2 else 1
            name = f"conv1d:n{n}c{c}w{size(20, 20000)}k{c if groups > 1 else k}s{s}_st{stride}"
            name += f"p{dilation * (s // 2)}d{dilation}g{groups}_f32"
        elif which == "volume":
            t, h = one_of(1, 2, 3), size(5, 60)
            name = f"conv3d:n{size(1, 4)}c{size(1, 96)}d{size(3, 20)}h{h}w{h}k{size(1, 96)}t{t}r{t}s{t}"
            name += f"_st{stride}p{t // 2}d1g1_f32"
        elif which == "planes":
            r, h, each = one_of(3, 3, 3, 5, 7, 9), size(6, 130), one_of(1, 1, 1, 1, 2, 3)
            name = f"conv2d:n{n}c{c}h{h}w{h}k{c * each}r{r}s{r}_st{stride}"
            name += f"p{dilation * (r // 2)}d{dilation}g{c}_f32"
        else:
            n, c, k, r, h = size(1, 8), size(1, 32), size(1, 32), one_of(1, 2, 3, 3, 3, 5, 7), size(3, 24)
            groups = c if rng.random() < 0.15 else 1
            padding = dilation * (r // 2) if rng.random() < 0.6 else 0
            name = f"conv2d:n{n}c{c}h{h}w{h}k{c if groups > 1 else k}r{r}s{r}_st{stride}p{padding}"
            name += f"d{dilation}g{groups}_f32"
        try:
            flops = problems.parse(name).flops("forward")
        except ValueError:  # the kernel does not fit
            continue
        low, high = (1e2, 1e6) if kind == "tiny" else sweep.FLOPS
        if low <= flops <= high:
            found[name] = None
    return list(found)


def names():
    """All shapes of the fit."""
    drawn = [sweep.shapes(COUNT, seed) for seed in SEEDS]
    return list(dict.fromkeys(sum(drawn + [rare(kind, COUNT, seed) for kind, seed in RARE.items()], [])))


# -- times ---------------------------------------------------------------------------------------------------


def measure(file, seconds):
    """Time what is missing in the file, for so long; returns how many cases are left."""
    fastconv.set_num_threads(1)
    done = {(row["problem"], row["direction"]) for row in read([file])} if file.exists() else set()
    cases = [
        (name, direction) for name in names() for direction in DIRECTIONS if (name, direction) not in done
    ]
    end = time.perf_counter() + seconds
    with file.open("a") as lines:
        for number, (name, direction) in enumerate(cases):
            if time.perf_counter() > end:
                return len(cases) - number
            row = {"problem": name, "direction": direction, "times": race(problems.parse(name), direction)}
            lines.write(json.dumps(row) + "\n")
            lines.flush()
    return 0


def race(problem, direction):
    """{algorithm: best seconds} of all that accept, in turns."""
    arrays, calls = problem.arrays(), {}
    for name in costs.COUNTS:
        try:
            sweep._plan(problem, direction, name)
        except (ValueError, fastconv.UnsupportedError):
            continue
        calls[name] = functools.partial(_call, problem, direction, arrays, name)
    samples = {
        name: [_seconds(call, 1), _seconds(call, 1)] for name, call in calls.items()
    }  # the first is a warm-up
    end, turns, number = time.perf_counter() + SECONDS * len(calls), list(calls), 0
    while turns and (number < ROUNDS or time.perf_counter() < end):
        for name in turns[number % len(turns) :] + turns[: number % len(turns)]:
            samples[name].append(_seconds(calls[name], max(1, int(SAMPLE / max(min(samples[name]), 1e-7)))))
        number += 1
        if number >= 3:
            best = min(map(min, samples.values()))
            turns = [name for name in turns if min(samples[name]) < HOPELESS * best]
    return {name: min(found) for name, found in samples.items()}


def _call(problem, direction, arrays, algorithm):
    x, weight, dy = arrays["x"], arrays["weight"], arrays["dy"]
    if direction == "forward":
        return getattr(fastconv, problem.op)(x, weight, None, **problem.options, algorithm=algorithm)
    mask = direction == "backward_input", direction == "backward_weight", False
    backward = getattr(fastconv, f"{problem.op}_backward")
    return backward(dy, x, weight, **problem.options, output_mask=mask, algorithm=algorithm)


def _seconds(call, inner):
    start = time.process_time()
    for _ in range(inner):
        call()
    return (time.process_time() - start) / inner


def read(files):
    """Rows {"problem", "direction", "times"} of files, those of the same case as one with its best times."""
    rows = {}
    for file in files:
        for line in Path(file).read_text().splitlines():
            row = json.loads(line)
            times = rows.setdefault((row["problem"], row["direction"]), row)["times"]
            times |= {name: min(took, times.get(name, took)) for name, took in row["times"].items()}
    return list(rows.values())


# -- the fit -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def _problem(name):
    return problems.parse(name).problem


def fit(rows, tell=print):
    """{direction: {algorithm: {step: cost}}} of the rows."""
    return {
        direction: _fit([r for r in rows if r["direction"] == direction], direction, tell)
        for direction in DIRECTIONS
    }


def _fit(rows, direction, tell):
    """Of one direction: costs, as squares so that none is negative, that give the algorithms' ratios."""
    from scipy.optimize import least_squares, nnls

    columns, parts = (
        [],
        [],
    )  # (algorithm, step); (rows, slice of columns, counts, log seconds) of an algorithm
    start, scale = [], []
    for algorithm in costs.COUNTS:
        where = [
            i
            for i, row in enumerate(rows)
            if row["times"].get(algorithm, np.inf) < 8 * min(row["times"].values())
        ]
        if not where:
            continue
        cases = [_problem(rows[i]["problem"]) for i in where]
        counted = [costs.count(direction, algorithm, problem, problem.N) for problem in cases]
        names = [name for name in counted[0] if any(steps[name] for steps in counted)]
        counts = np.array([[float(steps[name]) for name in names] for steps in counted])
        seconds = 1e9 * np.array([rows[i]["times"][algorithm] for i in where])
        alone = 1 / (counts / seconds[:, None]).mean(0)  # the cost with which a step would explain the mean
        start += list(
            np.sqrt(np.maximum(nnls(counts / seconds[:, None], np.ones(len(where)))[0], 0.02 * alone))
        )
        scale += list(np.sqrt(alone))
        parts.append((where, slice(len(columns), len(columns) + len(names)), counts, np.log(seconds)))
        columns += [(algorithm, name) for name in names]
    best = np.log([1e9 * min(row["times"].values()) for row in rows])
    taken, weights = np.zeros((2, len(rows), len(parts)))
    for j, (where, _, _, seconds) in enumerate(parts):
        taken[where, j] = 1
        # what is far from the best is never chosen, however badly it is estimated
        weights[where, j] = 3 / (1 + 2 * (seconds - best[where]))
    taken /= np.maximum(taken.sum(1, keepdims=True), 1)

    def residuals(roots):
        errors = np.zeros((len(rows), len(parts)))
        for j, (where, part, counts, seconds) in enumerate(parts):
            errors[where, j] = np.log(counts @ roots[part] ** 2 + 1) - seconds
        mean = (errors * taken).sum(1)  # of a case: a slow machine, or an array that is far away
        return np.concatenate(
            [((errors - mean[:, None]) * weights).ravel(), 0.35 * mean, 0.02 * roots / scale]
        )

    def slopes(roots):
        errors = np.zeros((len(rows), len(parts), len(roots)))
        for j, (where, part, counts, _) in enumerate(parts):
            errors[where, j, part] = counts * (2 * roots[part]) / (counts @ roots[part] ** 2 + 1)[:, None]
        mean = (errors * taken[:, :, None]).sum(1)
        ratios = (errors - mean[:, None]) * weights[:, :, None]
        return np.concatenate([ratios.reshape(-1, len(roots)), 0.35 * mean, np.diag(0.02 / scale)])

    start, scale = np.array(start), np.array(scale)
    found = least_squares(residuals, start, slopes, loss="soft_l1", f_scale=0.3, x_scale=scale, max_nfev=200)
    fitted = {}
    for (algorithm, name), root in zip(columns, found.x):
        fitted.setdefault(algorithm, {})[name] = float(root**2)
    tell(f"{direction}: {len(rows)} cases, {len(columns)} costs")
    return {algorithm: _pruned(rows, direction, algorithm, steps) for algorithm, steps in fitted.items()}


def _pruned(rows, direction, algorithm, prices):
    """Without the steps that never are a share of `KEPT` of an estimate; three digits."""
    largest = dict.fromkeys(prices, 0)
    for row in rows:
        if algorithm in row["times"]:
            for samples in costs.BATCHES:
                steps = costs.count(direction, algorithm, _problem(row["problem"]), samples)
                total = costs.cost(prices, steps)
                largest = {
                    name: max(share, prices[name] * steps[name] / total) for name, share in largest.items()
                }
    return {name: float(f"{price:.3g}") for name, price in prices.items() if largest[name] > KEPT}


def regret(rows, prices):
    """What is taken by these prices loses to the best in each row: array of (its time / the best) - 1."""
    lost = []
    for row in rows:
        known = prices[row["direction"]]
        estimates = {
            name: costs.estimate(row["direction"], name, _problem(row["problem"]), prices)
            for name in row["times"]
            if name in known
        }
        lost.append(row["times"][cheapest(estimates)] / min(row["times"].values()) - 1)
    return np.array(lost)


def text(prices):
    """`step_costs.py`."""
    head = TARGET.read_text().partition("COSTS = ")[0]
    lines = ["COSTS = {"]
    for direction, algorithms in prices.items():
        lines.append(f'    "{direction}": {{')
        for algorithm, steps in algorithms.items():
            lines.append(f'        "{algorithm}": {{')
            line = " " * 11
            for name, price in steps.items():
                entry = f' "{name}": {price:.3g},' if price < 100 else f' "{name}": {price:.0f},'
                if len(line) + len(entry) > 110:
                    lines.append(line)
                    line = " " * 11
                line += entry
            lines += [line, "        },"]
        lines.append("    },")
    return head + "\n".join([*lines, "}", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE.jsonl", help="times; new ones go to the first"
    )
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="time no longer than this (default: to the end)"
    )
    parser.add_argument("--write", action="store_true", help="put the fitted costs into step_costs.py")
    options = parser.parse_args()
    left = measure(options.files[0], options.seconds)
    rows = read(options.files)
    print(f"{len(rows)} cases timed, {left} left")
    if left and not options.write:
        return
    prices = fit(rows)
    lost = regret(rows, prices)
    share = 100 * np.mean(1 + lost <= WITHIN)
    within = f"within {100 * (WITHIN - 1):.0f} % of the best in {share:.1f} %"
    print(f"in the cases of the fit: {within}, {100 * lost.mean():.1f} % lost on average")
    if options.write:
        TARGET.write_text(text(prices))


if __name__ == "__main__":
    main()
