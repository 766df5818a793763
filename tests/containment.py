"""Whether non-finite values stay where they belong: convolutions with bad values in x and dy, judged.

Shared by the tests of the promises and `fuzz.py`.
"""

import functools

import numpy as np

import fastconv as fc
from fastconv import testing
from fastconv.testing import winograd


def bad_values(dtype):
    """NaN, infinities, and finite values so large that transforms may overflow, though no product does."""
    return np.nan, np.inf, -np.inf, float(np.finfo(dtype).max) / 4, -float(np.finfo(dtype).max)


def reached(case, x, dy):
    """Which elements of y, dx and dweight have those of x, of dy, in their sums: bool arrays."""
    ones = np.ones(case.weight)
    y = getattr(fc.reference, case.op)(x.astype(float), ones, **case.backward_options) > 0
    backward = getattr(fc.reference, f"{case.op}_backward")
    dx, of_dy, _ = backward(dy.astype(float), np.ones(x.shape), ones, **case.backward_options)
    _, of_x, _ = backward(np.ones(dy.shape), x.astype(float), ones, **case.backward_options)
    slices = (of_x + of_dy).any(axis=tuple(range(2, of_x.ndim)), keepdims=True)  # promised for whole (k, c)
    return y, dx > 0, np.broadcast_to(slices, of_x.shape)


def limits_of(case, inputs, dtype, tiles, scale=1.0):
    """(expected, bounds) of direct sums and of Winograd's algorithm; a scale is for inputs near overflow."""
    wide = testing.widened(inputs)
    wide |= {name: wide[name] / scale for name in ("x", "dy")}
    with np.errstate(all="ignore"):
        expected = case.run(fc.reference, wide)
        limits = case.bounds(wide, expected, dtype, "real")
        if tiles:
            limits |= case.winograd_bounds(wide, expected, dtype, dict(tiles))
        return expected, {name: limit * scale for name, limit in limits.items()}


class Clean:
    """Positive inputs of a case, and weights of both signs that are never zero."""

    def __init__(self, case, dtype, rng):
        given = {"x": rng.random(case.x) + 0.5, "weight": rng.choice([-0.75, 0.5, 0.25], case.weight)}
        given["bias"] = rng.standard_normal(case.weight[0]) if case.bias else None
        given["dy"] = rng.random(case.problem(dtype).y_shape) + 0.5
        self.case, self.dtype = case, dtype
        self.given = {name: a if a is None else a.astype(dtype) for name, a in given.items()}
        self.limits = functools.cache(functools.partial(limits_of, case, self.given, dtype))


class Spoilt:
    """The same with bad values in x and dy, and what should come of them."""

    def __init__(self, clean, rng, bad, density=0.0):
        """density: how many are bad, besides one that is anywhere."""
        case = self.case = clean.case
        self.clean, self.given, is_bad = clean, dict(clean.given), {}
        for name in ("x", "dy"):
            where = rng.random(self.given[name].shape) < density
            where.flat[rng.integers(where.size)] = True
            self.given[name] = np.where(where, clean.dtype.type(bad), self.given[name])
            is_bad[name] = where
        self.finite = np.isfinite(bad)
        self.limits = functools.cache(functools.partial(limits_of, case, self.given, clean.dtype))
        names = f"{case.op} y", f"{case.op}_backward dx", f"{case.op}_backward dweight"
        self.reached = dict(zip(names, reached(case, **is_bad)))
        with np.errstate(all="ignore"):
            self.true = case.run(fc.reference, testing.widened(self.given))

    def check(self, algorithm, what):
        """Compute by an algorithm: the untouched are right, the touched are IEEE arithmetic's."""
        with np.errstate(all="raise"):
            results = self.case.run(fc, self.given, algorithm)
        tiles = tuple(winograd.used(self.case.chosen(fc, self.clean.dtype, algorithm)).items())
        expected, limits = self.clean.limits(tiles)
        if tiles and self.finite:  # may touch its tile's neighbours, within the bound
            large = self.limits(tiles, 2.0**100)[1]
            limits = limits | {name: large[name] for name, _ in tiles if "dweight" not in name}
        for name in self.reached.keys() & results.keys():
            actual, true, touched = results[name], self.true[name], self.reached[name]
            rest = actual[~touched], expected[name][~touched], limits[name][~touched]
            testing.compare(*rest, f"{name} out of reach, {what}")
            if self.finite:
                continue
            if name.endswith("dweight"):
                assert not np.isfinite(actual[~np.isfinite(true)]).any(), f"{name}, {what}"
            else:
                testing.compare(actual[touched], true[touched], 0.0, f"{name}, {what}")
