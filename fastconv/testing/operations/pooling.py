"""Max and average pooling, adaptive or not."""

import itertools
import math

import numpy as np

from ..._problem import PoolProblem
from .. import bounds
from ..arrays import exact_inputs, special_inputs
from .case import Case, dot, hidden, the_reference


class MaxPool(Case):
    """max_pool{n}d with indices and its backward pass. Nothing is rounded: always equal."""

    kinds = ("exact", "real", "special")

    def __init__(self, ndim, x, kernel_size, *, layout="contiguous", label="", **options):
        super().__init__(f"max_pool{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.arguments = ndim, x, (kernel_size,)

    def problem(self, dtype):
        return PoolProblem.of(
            hidden(self.x, dtype), *self.arguments, **self.options, ndim=self.ndim, op=self.op
        )

    def describe(self, dtype):
        return self.problem(dtype).name

    def draw(self, rng, dtype, make):
        plain = exact_inputs if make is special_inputs else make
        return {"x": make(rng, self.x), "dy": plain(rng, self.problem(dtype).y_shape)}

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        alone = forward(inputs["x"], *self.arguments, **self.options)
        y, indices = forward(inputs["x"], *self.arguments, **self.options, return_indices=True)
        dx = backward(inputs["dy"], indices, self.x)
        return {
            f"{self.op} y": y,
            f"{self.op} indices": indices,
            f"{self.op} y alone": alone,
            f"{self.functions[1]} dx": dx,
        }

    def bounds(self, inputs, results, dtype, kind):
        errors = dict.fromkeys(results, 0.0)
        if kind == "real":  # several windows may choose the same input, and their dy are summed
            _, indices = getattr(the_reference(), self.op)(
                inputs["x"], *self.arguments, **self.options, return_indices=True
            )
            dx = getattr(the_reference(), self.functions[1])(np.abs(inputs["dy"]), indices, self.x)
            taps = math.prod(self.problem(dtype).kernel)
            errors[f"{self.functions[1]} dx"] = bounds.bound(dx, taps, dtype)
        return errors

    def pairings(self, inputs, results):
        y = results[f"{self.op} y"]
        inside = np.where(np.isfinite(y), y, 0)  # -inf: the window was all padding
        return (dot(inside, inputs["dy"]), dot(inputs["x"], results[f"{self.functions[1]} dx"]))


class AdaptiveMaxPool(MaxPool):
    """adaptive_max_pool{n}d with indices and its backward pass."""

    def __init__(self, ndim, x, output_size, *, layout="contiguous", label=""):
        super().__init__(ndim, x, output_size, layout=layout, label=label)
        self.op = f"adaptive_max_pool{ndim}d"

    def problem(self, dtype):
        return PoolProblem.of_adaptive(hidden(self.x, dtype), *self.arguments, ndim=self.ndim, op=self.op)


class AvgPool(Case):
    """avg_pool{n}d and its backward pass: exact on integers where every divisor is a power of two."""

    def __init__(self, ndim, x, kernel_size, *, layout="contiguous", label="", **options):
        super().__init__(f"avg_pool{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.arguments = ndim, x, (kernel_size,)

    def problem(self, dtype):
        return PoolProblem.of(
            hidden(self.x, dtype), *self.arguments, **self.options, ndim=self.ndim, op=self.op
        )

    def describe(self, dtype):
        return self.problem(dtype).name

    def draw(self, rng, dtype, make):
        return {"x": make(rng, self.x), "dy": make(rng, self.problem(dtype).y_shape)}

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        return {
            f"{self.op} y": forward(inputs["x"], *self.arguments, **self.options),
            f"{self.op}_backward dx": backward(inputs["dy"], self.x, *self.arguments, **self.options),
        }

    def bounds(self, inputs, results, dtype, kind):
        if kind == "exact" and self._exact():
            return dict.fromkeys(results, 0.0)
        magnitude = self.run(the_reference(), {name: np.abs(a) for name, a in inputs.items()})
        length = math.prod(self.problem(dtype).kernel) + 1
        return {name: bounds.bound(a, length, dtype) for name, a in magnitude.items()}

    def _exact(self):
        p = self.problem(np.float64)
        if p.divisor_override is not None:
            divisors = [p.divisor_override]
        else:
            counts = [counted if p.count_include_pad else valid for _, valid, counted in p.windows]
            divisors = [
                math.prod(map(int, c)) for c in itertools.product(*map(set, (c.tolist() for c in counts)))
            ]
        return all(d == 0 or (abs(d) & (abs(d) - 1)) == 0 for d in divisors)

    def pairings(self, inputs, results):
        if not self._exact():
            return ()
        scale = 2.0**20  # all the divisors divide it: back to integers
        return (
            dot(np.multiply(results[f"{self.op} y"], scale, dtype=np.float64), inputs["dy"]),
            dot(inputs["x"], np.multiply(results[f"{self.op}_backward dx"], scale, dtype=np.float64)),
        )


class AdaptiveAvgPool(AvgPool):
    """adaptive_avg_pool{n}d and its backward pass."""

    def __init__(self, ndim, x, output_size, *, layout="contiguous", label=""):
        super().__init__(ndim, x, output_size, layout=layout, label=label)
        self.op = f"adaptive_avg_pool{ndim}d"

    def problem(self, dtype):
        return PoolProblem.of_adaptive(hidden(self.x, dtype), *self.arguments, ndim=self.ndim, op=self.op)

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        return {
            f"{self.op} y": forward(inputs["x"], *self.arguments),
            f"{self.op}_backward dx": backward(inputs["dy"], self.x),
        }
