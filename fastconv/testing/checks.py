"""The judges: actual against expected within a bound, exact adjoints, a backend against the reference."""

import functools
from typing import NamedTuple

import numpy as np

from .._errors import UnsupportedError
from . import winograd
from .arrays import poisoned
from .cases import cases
from .operations import Convolution, widened

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


# ---- one array ------------------------------------------------------------------------------------------


def worst(actual, expected, bound=0.0):
    """The largest |actual - expected| / bound: at most 1 is right, inf is wrong without measure.

    Where expected is NaN or infinite, actual must be the same; where the bound is 0, it must be equal.
    """
    ratio = _ratios(actual, expected, bound)
    return float(ratio.max()) if ratio.size else 0.0


def _ratios(actual, expected, bound):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return np.array(np.inf)
    with np.errstate(all="ignore"):
        error = np.abs(actual - expected)
        ratio = np.where(error > 0, error / bound, 0.0)
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        measurable = np.isfinite(expected) & np.isfinite(actual)
    return np.where(same, 0.0, np.where(measurable, ratio, np.inf))


def compare(actual, expected, bound=0.0, what="result"):
    """Raises AssertionError unless actual is within bound of expected; returns the worst error / bound.

    actual: the array under test; expected: float64, not rounded; bound: a number or an array, 0 for equality.
    NaN and infinities must stand exactly where expected has them.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, expected {expected.shape}")
    ratio = _ratios(actual, expected, bound)
    wrong = ~(ratio <= 1)
    if not wrong.any():
        return float(ratio.max()) if ratio.size else 0.0
    first = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(wrong)))[: actual.ndim]
    limit = float(np.broadcast_to(bound, actual.shape)[first])
    raise AssertionError(
        f"{what}: {np.count_nonzero(wrong)} of {actual.size} elements are wrong, the first at {first}: "
        f"{actual[first]!r}, expected {expected[first]!r}, "
        + (
            f"admissible error {limit:.3g}, worst error / bound {ratio.max():.3g}"
            if limit
            else "must be equal"
        )
    )


def same_bits(a, b, what="result"):
    """Raises AssertionError unless two arrays have one dtype, shape and bits (any NaN equals any NaN)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        raise AssertionError(f"{what}: {a.dtype} {a.shape} against {b.dtype} {b.shape}")
    a, b = (np.ascontiguousarray(v).reshape(-1) for v in (a, b))
    bits = a.view(f"u{a.dtype.itemsize}") == b.view(f"u{b.dtype.itemsize}")
    if a.dtype.kind == "f":
        bits |= np.isnan(a) & np.isnan(b)
    if not bits.all():
        i = int(np.argmin(bits))
        raise AssertionError(
            f"{what}: {np.count_nonzero(~bits)} of {a.size} elements differ in their bits, "
            f"the first at flat position {i}: {a[i]!r} against {b[i]!r}"
        )


class Guarded:
    """A poisoned array between poisoned margins: what a kernel writes outside `array` shows in `intact()`."""

    def __init__(self, shape, dtype, margin=64):
        self._memory = poisoned(int(np.prod(shape)) + 2 * margin, dtype)
        self._margin = margin
        self.array = self._memory[margin:-margin].reshape(shape)

    def intact(self):
        """Whether both margins are as they were."""
        fresh = poisoned(self._margin, self._memory.dtype).tobytes()
        return self._memory[: self._margin].tobytes() == fresh == self._memory[-self._margin :].tobytes()


# ---- one case -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)  # the whole list of cases takes 140 MB
def expectation(case, dtype, kind):
    """(inputs, expected results, bounds) of a case: computed once for all that follow."""
    from .. import reference

    inputs = case.inputs(dtype, kind)
    wide = widened(inputs)
    expected = case.run(reference, wide)
    with np.errstate(all="ignore"):
        limits = case.bounds(wide, expected, dtype, kind)
    return inputs, {name: expected[name] for name in limits}, limits


@functools.lru_cache(maxsize=16)
def _winograd_limits(case, dtype, kind, tiles):
    """The bounds of results that come from Winograd's algorithm; for integers too: it is never exact."""
    inputs, expected, _ = expectation(case, dtype, kind)
    with np.errstate(all="ignore"):
        return case.winograd_bounds(widened(inputs), expected, dtype, dict(tiles))


def _limits(namespace, case, dtype, kind, algorithm):
    """(inputs, expected results, bounds, by Winograd's algorithm: names, refused: names)."""
    inputs, expected, limits = expectation(case, np.dtype(dtype), kind)
    chosen = case.chosen(namespace, np.dtype(dtype), algorithm)
    refused = {name for name, how in chosen.items() if how is None}
    inexact = {name: tile for name, tile in winograd.used(chosen).items() if name in limits}
    if inexact:
        limits = limits | _winograd_limits(case, np.dtype(dtype), kind, tuple(inexact.items()))
    return inputs, expected, limits, inexact, refused


def check(namespace, case, dtype=np.float32, kind="real", algorithm="auto", place=None):
    """Runs a case on a namespace of the public functions and compares every result with the reference.

    namespace: fastconv, fastconv.cuda, ...; kind: "exact" (integers, equality), "real" (the bound),
    "special" (with NaN and infinities). algorithm: a name, which need not be valid for all directions.
    place: a function that copies an input to other memory (`guarded`), applied to each.

    Also: floats come back in dtype, fresh, C-contiguous, inputs are not written, `out=` gives the same bits
    and nothing outside, and with exact inputs the adjoint identities hold. Returns {"function result":
    error / bound}, empty if the algorithm refuses in all directions. Raises AssertionError.
    """
    inputs, expected, limits, inexact, refused = _limits(namespace, case, dtype, kind, algorithm)
    if place is not None:
        inputs = {name: None if a is None else place(a) for name, a in inputs.items()}
    before = {name: None if a is None else a.tobytes() for name, a in inputs.items()}
    results = case.run(namespace, inputs, algorithm)
    for name, a in inputs.items():
        if a is not None and a.tobytes() != before[name]:
            expectation.cache_clear()  # these inputs are spoilt
            raise AssertionError(f"{case.name(dtype)} {kind} {algorithm}: the input {name} was written to")
    ratios = {}
    for name, actual in results.items():
        what = f"{case.name(dtype)} {kind} {algorithm}: {name}"
        _check_form(actual, dtype, what)
        if name in limits:
            ratios[name] = compare(actual, expected[name], limits[name], what)
    missing = limits.keys() - results.keys()
    # dbias has no algorithm of its own and goes with one of the others
    for name, with_it in (("dx", "dbias alone"), ("dweight", "dbias")):
        if f"{case.op}_backward {name}" in refused:
            refused.add(f"{case.op}_backward {with_it}")
    if missing - refused:
        raise AssertionError(f"{case.name(dtype)} {kind} {algorithm}: no {', '.join(sorted(missing))}")
    if isinstance(case, Convolution) and f"{case.op} y" in results:
        _check_out(namespace, case, inputs, results[f"{case.op} y"], dtype, algorithm)
    if kind == "exact" and not missing and not inexact:
        check_adjoint(case, inputs, results)
    return ratios


def _check_form(actual, dtype, what):
    if not isinstance(actual, (np.ndarray, np.generic)):
        raise AssertionError(f"{what}: {type(actual).__name__}, expected a NumPy array")
    if actual.dtype.kind == "f" and (actual.dtype != dtype or not actual.dtype.isnative):
        raise AssertionError(f"{what}: dtype {actual.dtype}, expected {np.dtype(dtype)}")
    if actual.dtype.kind == "i" and actual.dtype != np.int64:
        raise AssertionError(f"{what}: dtype {actual.dtype}, expected int64")
    if not actual.flags.c_contiguous:
        raise AssertionError(f"{what}: not C-contiguous, strides {actual.strides}")


def _check_out(namespace, case, inputs, y, dtype, algorithm):
    what = f"{case.name(dtype)}: out="
    guarded = Guarded(y.shape, y.dtype)
    how = {} if algorithm == "auto" else {"algorithm": algorithm}
    given = getattr(namespace, case.op)(
        inputs["x"], inputs["weight"], inputs["bias"], **case.options, **how, out=guarded.array
    )
    if given is not guarded.array:
        raise AssertionError(f"{what}: returned another array than the one given")
    same_bits(guarded.array, y, what)
    if not guarded.intact():
        raise AssertionError(f"{what}: memory outside the array was written to")


def check_adjoint(case, inputs, results):
    """<forward(x, w), dy> == <x, dx> == <w, dweight>, exactly (integers). Raises AssertionError."""
    numbers = case.pairings(inputs, results)
    if len(set(numbers)) > 1:
        raise AssertionError(
            f"{case.name()}: not adjoint: <y, dy>, <x, dx>, ... are {', '.join(map(str, numbers))}"
        )


def measure(namespace, case, dtype=np.float32, kind="real", algorithm="auto"):
    """{"function result": worst error / bound} of a case, without raising: inf for a wrong shape.

    A named algorithm may refuse some of the results; they are left out.
    """
    inputs, expected, limits, _, _ = _limits(namespace, case, dtype, kind, algorithm)
    results = case.run(namespace, inputs, algorithm)
    wanted = limits if algorithm == "auto" else limits.keys() & results.keys()
    return {name: worst(results.get(name, np.nan), expected[name], limits[name]) for name in wanted}


# ---- a whole backend ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of a report: an operation, how many checks, the worst error / bound, whether all are right."""

    op: str
    cases: int
    worst: float
    ok: bool
    note: str = ""


def check_backend(namespace, dtypes=DTYPES, kinds=("exact", "real"), ops=(), every=1, algorithm="auto"):
    """Yields a Row per public function, every case against the reference, then Rows of gradient checks.

    namespace: fastconv, fastconv.cuda or fastconv.reference; ops: only cases that call these functions;
    every: take one case in so many. algorithm: a name checks convolutions only, by that algorithm and where
    it does not refuse.
    """
    rows, notes = {}, {}
    order = []
    for case in cases(*ops)[::every]:
        if algorithm != "auto" and not isinstance(case, Convolution):
            continue
        order.extend(f for f in case.functions if f not in rows)
        for function in case.functions:
            rows.setdefault(function, [])
        for dtype in dtypes:
            for kind in kinds:
                if kind not in case.kinds:
                    continue
                try:
                    for name, ratio in measure(namespace, case, dtype, kind, algorithm).items():
                        rows[name.partition(" ")[0]].append(ratio)
                        if ratio > 1:
                            notes.setdefault(name.partition(" ")[0], f"{case.name(dtype)} {kind}")
                except UnsupportedError as refusal:
                    notes.setdefault(case.op, str(refusal))
                except Exception as error:  # a report must get to its end, and say what happened
                    rows[case.op].append(np.inf)
                    notes.setdefault(case.op, f"{case.name(dtype)} {kind}: {type(error).__name__}: {error}")
    for function in order:
        ratios = rows[function]
        if algorithm != "auto" and not ratios:  # this direction has no such algorithm
            continue
        largest = max(ratios, default=0.0)
        yield Row(function, len(ratios), largest, bool(ratios) and largest <= 1, notes.get(function, ""))
    for op, f, x, dy in gradients(namespace) if algorithm == "auto" else ():
        if not ops or {op, f"{op}_backward"} & set(ops):
            yield _gradient_row(op, f, x, dy)


def _gradient_row(op, f, x, dy):
    from .. import check_gradient

    try:
        report = check_gradient(f, x, dy)
    except Exception as error:
        return Row(f"gradient of {op}", 1, np.inf, False, f"{type(error).__name__}: {error}")
    return Row(f"gradient of {op}", report.checked, report.max_error / report.threshold, report.ok)


def gradients(fc):
    """(op, f, x, dy) for `check_gradient`: f(x) -> (y, backward) of what is not linear, in float64."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape)

    def away_from_kinks(*shape):  # at least 0.1 from 0, where relu and its relatives have no derivative
        x = draw(*shape)
        return x + 0.1 * np.sign(x)

    for op, options in (
        ("relu", {}),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("elu", {"alpha": 0.7}),
        ("sigmoid", {}),
        ("tanh", {}),
        ("softmax", {"axis": 1}),
        ("log_softmax", {"axis": 1}),
    ):

        def activation(x, op=op, options=options):
            y = getattr(fc, op)(x, **options)
            return y, lambda dy: getattr(fc, f"{op}_backward")(dy, y, **options)

        yield op, activation, away_from_kinks(3, 5), draw(3, 5)

    classes, weight = rng.integers(0, 4, 3), rng.random(4) + 0.5
    some = (0.1 + np.arange(12.0) / 12).reshape(3, 4)
    for op, target, options in (
        ("softmax_cross_entropy", classes, {"weight": weight, "label_smoothing": 0.1}),
        ("nll", classes, {"weight": weight}),
        ("hinge", classes, {}),
        ("sigmoid_cross_entropy", some, {"pos_weight": weight}),
        ("squared_error", some, {}),
    ):

        def loss(x, op=op, target=target, options=options):
            value, gradient = getattr(fc, op)(x, target, **options)
            return np.asarray(value), lambda dy: dy * gradient

        yield op, loss, draw(3, 4), np.ones(())

    scale, shift, mean, var = draw(3), draw(3), draw(3), rng.random(3) + 0.5
    for training in (True, False):

        def batch_norm(x, training=training):
            y = fc.batch_norm(x, scale, shift, mean.copy(), var.copy(), training=training)
            return y, lambda dy: fc.batch_norm_backward(dy, x, scale, mean, var, training=training)[0]

        yield "batch_norm", batch_norm, draw(4, 3, 5), draw(4, 3, 5)

    def response_norm(x):
        return (
            fc.local_response_norm(x, 3, 0.5, 0.75, 2.0),
            lambda dy: fc.local_response_norm_backward(dy, x, 3, 0.5, 0.75, 2.0),
        )

    yield "local_response_norm", response_norm, draw(2, 5, 3), draw(2, 5, 3)

    w = draw(3, 2, 3, 3)

    def convolution(x):
        y = fc.conv2d(x, w, padding=1, activation="tanh")
        return y, lambda dy: fc.conv2d_backward(fc.tanh_backward(dy, y), x, w, padding=1)[0]

    yield "conv2d", convolution, draw(1, 2, 4, 5), draw(1, 3, 4, 5)

    def max_pool(x):
        y, indices = fc.max_pool2d(x, 2, return_indices=True)
        return y, lambda dy: fc.max_pool2d_backward(dy, indices, x.shape)

    distinct = rng.permutation(48).reshape(1, 2, 4, 6) / 8.0
    yield "max_pool2d", max_pool, distinct, draw(1, 2, 2, 3)
