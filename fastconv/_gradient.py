"""check_gradient: an analytic gradient against central differences, under an error bound, not a tolerance."""

from dataclasses import dataclass

import numpy as np

from . import _arguments as arguments

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)  # balances truncation (~ step^2) and rounding (~ eps / step): both about 4e-11
ROUNDING = 8  # units of rounding error allowed in an element of y: sums of some hundred terms stay below it
RESOLUTION = 5e-4  # a difference known worse than this part of the largest says nothing about a 0.1 % error
UNRESOLVED = 0.1  # at most this part of the elements may be so: kinks are rare, a noisy f is not
ALL_UP_TO = 4096  # elements; a larger x is sampled, and checked along a random direction through all of it
SAMPLE = 1024


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradient` found. True in a condition where `ok`.

    max_error: |analytic - numerical| at the worst element, the one that exceeds its bound most (or comes
        nearest to it); threshold: that bound; index: where in x (None: along the random direction through all
        of x);
        analytic, numerical: the two values there.
    checked: how many derivatives were compared; unresolved: how many more could not be told from rounding, or
        have a kink within the step.
    """

    ok: bool
    max_error: float
    threshold: float
    index: tuple | None
    analytic: float
    numerical: float
    checked: int
    unresolved: int

    def __bool__(self):
        return self.ok


def check_gradient(f, x, dy=None):
    """Compare the gradient that `f` returns with central differences of f, in float64.

    f: f(x) -> (y, backward) with backward(dy) -> dx, as ``layer.forward`` is; for a scalar y also (y, dx), as
        the losses return. It must be deterministic and accept float64.
    x: where to differentiate, float32 or float64 (used as float64). All elements are checked; of more than
        4096 a fixed sample, and the derivative along a fixed random direction through all of them. Keep away
        from kinks.
    dy: the gradient of the objective with respect to y; by default fixed random numbers of size 0.5 to 1.

    For every element i, with L(x) = sum of y * dy and a step h of about 6e-6 times the size of x,
    numerical = (L(x + h e_i) - L(x - h e_i)) / 2h, and the gradient is right if |dx_i - numerical| is at most

        |numerical(2h) - numerical(h)|  +  8 eps max|y| (sum of |dy| over the y that x_i moves) / h:

    truncation, overestimated three times by the step twice as long, and rounding (of one y at least). Where
    this bound is above 0.05 % of the largest derivative it decides nothing: such elements are counted as
    unresolved, and more than a tenth of them is a failure too (f is not smooth, or computes in float32).

    Returns a GradientReport with `ok`, `max_error`, `threshold`, `index` and more.
    Raises TypeError (kinds) and ValueError (shapes; f not deterministic).
    """
    if not callable(f):
        raise TypeError(f"check_gradient: f must be callable, got {type(f).__name__}")
    x = np.array(arguments.float_array("check_gradient", "x", x, scalars=True), np.float64)
    y, backward = _evaluate(f, x)
    dy = _weights(y, dy)
    dx = _analytic(backward, dy, x)
    if not np.array_equal(_evaluate(f, x)[0], y, equal_nan=True):
        raise ValueError("check_gradient: f returned another y for the same x, need a deterministic f")
    if x.size == 0:
        return GradientReport(True, 0.0, 0.0, None, 0.0, 0.0, 0, 0)

    with np.errstate(invalid="ignore", over="ignore"):  # a NaN is a failure of the gradient, not of the check
        size = np.mean(np.abs(x)) or 1.0
        largest_y, largest_dy = np.max(np.abs(y), initial=0.0), np.max(np.abs(dy), initial=0.0)
        rounding = ROUNDING * EPS * largest_y
        rows = []  # (where, analytic, numerical, bound)
        where = range(x.size)
        if x.size > ALL_UP_TO:
            rng = np.random.default_rng(0)
            where = np.sort(rng.choice(x.size, SAMPLE, replace=False))
            everywhere = STEP * size * rng.choice((-1.0, 1.0), x.shape)
            rows.append((None, *_compare(f, x, dx, everywhere, dy, rounding)))
        for i in where:
            move = np.zeros(x.shape)
            move.reshape(-1)[i] = STEP * max(abs(x.reshape(-1)[i]), size)
            rows.append((int(i), *_compare(f, x, dx, move, dy, rounding)))
        return _judge(rows, x.shape, largest_y * largest_dy / size)


def _evaluate(f, x):
    """(y as a float64 copy, backward): y may be a view of x, and x is changed later."""
    result = f(x)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"check_gradient: f must return (y, backward), got {arguments.show(result)}")
    y, backward = result
    return _real("f must return an array y", y), backward


def _weights(y, dy):
    if dy is None:
        rng = np.random.default_rng(0)
        dy = rng.uniform(0.5, 1.0, y.shape) * rng.choice((-1.0, 1.0), y.shape)
        return np.asarray(dy) if y.ndim else np.ones(())
    dy = np.array(arguments.float_array("check_gradient", "dy", dy, scalars=True), np.float64)
    arguments.shape_is("check_gradient", "dy", dy, y.shape, "the shape of y")
    return dy


def _analytic(backward, dy, x):
    if callable(backward):
        dx = backward(dy)
    elif dy.ndim == 0:
        dx = _real("backward must be callable", backward) * dy  # a loss: its gradient came along
    else:
        raise TypeError(f"check_gradient: backward must be callable, got {type(backward).__name__}")
    dx = _real("backward must return an array", dx)
    if dx.shape != x.shape:
        raise ValueError(f"check_gradient: backward returned shape {dx.shape}, need {x.shape} (that of x)")
    return dx


def _real(rule, value):
    """A result of the user's function as a float64 copy."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"check_gradient: {rule}, got {arguments.show(value)} ({type(value).__name__})")
    return np.array(array, np.float64)


def _compare(f, x, dx, move, dy, rounding):
    """(analytic, numerical, bound) derivatives of sum(f * dy) along `move`, per unit of its largest part."""
    length = np.max(np.abs(move))

    def central(scale):
        up, down = np.asarray(x + scale * move), np.asarray(x - scale * move)
        change = _evaluate(f, up)[0] - _evaluate(f, down)[0]  # before the sum: what is not moved cancels
        analytic = np.sum(dx * (up - down))  # along the step as it came out in floating point
        rate = 2 * scale * length
        moved = max(np.sum(np.abs(dy)[change != 0]), np.max(np.abs(dy), initial=0.0))
        return analytic / rate, np.sum(change * dy) / rate, rounding * moved / (scale * length)

    analytic, numerical, noise = central(1)
    _, twice, _ = central(2)
    return analytic, numerical, abs(twice - numerical) + noise


def _judge(rows, shape, slope):
    """The report on (where, analytic, numerical, bound) rows; slope: a derivative as y's size suggests it."""
    largest = max(1e-4 * slope, *(abs(numerical) for _, _, numerical, _ in rows))
    resolved = [row for row in rows if row[3] <= RESOLUTION * largest]
    unresolved = len(rows) - len(resolved)

    def excess(row):
        error = abs(row[1] - row[2])
        return np.inf if np.isnan(error) else error / row[3] if row[3] else np.inf if error else 0.0

    where, analytic, numerical, bound = max(resolved or rows, key=excess)
    error = abs(analytic - numerical)
    return GradientReport(
        ok=bool(error <= bound and unresolved <= UNRESOLVED * len(rows)),
        max_error=float(error),
        threshold=float(bound),
        index=None if where is None else tuple(int(i) for i in np.unravel_index(where, shape)),
        analytic=float(analytic),
        numerical=float(numerical),
        checked=len(resolved),
        unresolved=unresolved,
    )
