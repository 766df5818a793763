"""What "auto" takes: of the algorithms that accept a problem the one with the least estimated cost,
unless something else speaks against it."""

from functools import lru_cache

import numpy as np

from .algorithms import TABLES
from .costs import COSTS, estimate

ACCURATE = {"winograd8": "winograd"}  # the same with smaller tiles, which is four times as accurate
LARGE_TILE_SHARE = 0.9  # of its time that the larger tile may take
SMALL = 300_000  # flops of a sample up to which examples with integers come out exact

DIRECTIONS = {
    "conv": "forward",
    "conv_backward_input": "backward_input",
    "conv_backward_weight": "backward_weight",
}


def suits(table, name):
    """`Algorithm.suits` of a row of conv.py's tables: None if its estimate is the least, or why not."""

    def judge(problem, precision):
        reason = _barred(table, name, problem, precision)
        if reason is not None:
            return reason
        found = _estimates(table, problem, precision)
        if _saves_too_little(name, found):
            return f"saves too little beside {ACCURATE[name]} for the accuracy that it costs"
        best = cheapest(found)
        return (
            None
            if name == best
            else f"would take {found[name] / found[best]:.2f} times as long as {best}, by estimate"
        )

    return judge


def cheapest(estimates):
    """The name to take of {name: estimated cost}."""
    return min((name for name in estimates if not _saves_too_little(name, estimates)), key=estimates.get)


def _saves_too_little(name, estimates):
    return name in ACCURATE and estimates[name] > LARGE_TILE_SHARE * estimates.get(ACCURATE[name], np.inf)


def _barred(table, name, problem, precision):
    """Why an algorithm is not taken whatever it costs, or None."""
    if name == "im2col":
        return "is run only when named: it writes out the whole patch matrix"
    if name.startswith("winograd"):
        if precision == "strict":
            return "is not a direct sum, which precision 'strict' asks for"
        if problem.dtype != np.float32:
            return "is run only when named for float64: who asks for float64 asks for its accuracy"
        if name == "winograd1d" and problem.flops < SMALL * max(1, problem.N):
            return "is not a direct sum, which small problems are computed by"
    return None if name in COSTS[DIRECTIONS[table]] else "is run only when named: what it costs is not known"


@lru_cache(maxsize=4096)
def _estimates(table, problem, precision):
    """{name: estimated cost} of all that could be taken, in the order of the table."""
    able = (
        a.name
        for a in TABLES[table]
        if a.accepts(problem) is None and _barred(table, a.name, problem, precision) is None
    )
    return {name: estimate(DIRECTIONS[table], name, problem) for name in able}
