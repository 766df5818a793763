"""Convolution, transposed convolution, im2col and col2im."""

import math

import numpy as np

from ..._errors import UnsupportedError
from ..._problem import ConvProblem
from .. import bounds, winograd, winograd1d, winograd1d_weight
from ..arrays import exact_inputs, real_inputs
from .case import Case, asked_for, dot, hidden, known, magnitudes, the_reference


class Convolution(Case):
    """conv{n}d and its backward pass."""

    kinds = ("exact", "real", "special")

    def __init__(self, ndim, x, weight, *, bias=True, layout="contiguous", label="", **options):
        super().__init__(f"conv{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.weight, self.bias = ndim, x, weight, bias
        self.channels = weight[0]
        self.backward_options = {k: v for k, v in options.items() if k != "activation"}

    def problem(self, dtype):
        bias = hidden(self.weight[0], dtype) if self.bias else None
        return ConvProblem.of(
            hidden(self.x, dtype),
            hidden(self.weight, dtype),
            bias,
            **self.options,
            ndim=self.ndim,
            op=self.op,
        )

    def describe(self, dtype):
        return self.problem(dtype).name

    def draw(self, rng, dtype, make):
        plain = exact_inputs if make is exact_inputs else real_inputs
        return {
            "x": make(rng, self.x),
            "weight": plain(rng, self.weight),  # what a weight that is not finite
            "bias": plain(rng, self.weight[0]) if self.bias else None,  # does at a border is not specified
            "dy": make(rng, self.problem(dtype).y_shape),
        }

    directions = {"y": "{}", "dx": "{}_backward_input", "dweight": "{}_backward_weight"}

    def chosen(self, fc, dtype, algorithm="auto"):
        bias = hidden(self.channels, dtype) if self.bias else None
        arrays = hidden(self.x, dtype), hidden(self.weight, dtype), bias
        found = {}
        if not hasattr(fc, "plan"):  # a namespace of a few functions, to test the tests
            return found
        for name, direction in self.directions.items():
            result = f"{self.op} y" if name == "y" else f"{self.op}_backward {name}"
            if not known(fc, direction.format(self.op), algorithm):
                found[result] = None
                continue
            try:
                plan = fc.plan(direction.format(self.op), *arrays, **self.options, **asked_for(algorithm))
                found[result] = plan.algorithm
            except UnsupportedError:
                found[result] = None
        return found

    def run(self, fc, inputs, algorithm="auto"):
        x, weight, bias, dy = inputs["x"], inputs["weight"], inputs["bias"], inputs["dy"]
        how = asked_for(algorithm)
        results = {}
        try:
            if known(fc, self.op, algorithm):
                results[f"{self.op} y"] = getattr(fc, self.op)(x, weight, bias, **self.options, **how)
        except UnsupportedError:
            if algorithm == "auto":
                raise
        backward = getattr(fc, f"{self.op}_backward")
        for direction, mask in (("dx", (True, False, True)), ("dweight", (False, True, True))):
            if not known(fc, self.directions[direction].format(self.op), algorithm):
                continue
            try:
                dx, dweight, dbias = backward(
                    dy, x, weight, **self.backward_options, output_mask=mask, **how
                )
            except UnsupportedError:
                if algorithm == "auto":
                    raise
                continue
            if direction == "dx":  # a sum for itself
                found = {"dx": dx, "dbias alone": dbias}
            else:  # one that may be taken along with the other
                found = {"dweight": dweight, "dbias": dbias}
            results |= {f"{self.op}_backward {name}": value for name, value in found.items()}
        return results

    def bounds(self, inputs, results, dtype, kind):
        p, reference = self.problem(np.float64), the_reference()
        x, weight, dy = magnitudes(inputs, "x", "weight", "dy")
        bias = magnitudes(inputs, "bias")[0] if self.bias else None
        exact = kind == "exact"
        forward, backward = (getattr(reference, name) for name in self.functions)
        y_error = 0.0
        if not exact:
            magnitude = forward(x, weight, bias, **self.backward_options)
            y_error = bounds.bound(magnitude, p.C // p.groups * p.taps + 1, dtype)
        y_error = bounds.activated(p.activation, results[f"{self.op} y"], y_error, dtype)
        dx, dweight, dbias = 0.0, 0.0, 0.0
        if not exact:
            dx, dweight, dbias = backward(dy, x, weight, **self.backward_options)
            pixels = p.N * math.prod(p.out)
            dx = bounds.bound(dx, p.K // p.groups * p.taps, dtype)
            dweight = bounds.bound(dweight, pixels, dtype)
            dbias = bounds.bound(dbias, pixels, dtype)
        errors = {
            f"{self.op} y": y_error,
            f"{self.op}_backward dx": dx,
            f"{self.op}_backward dweight": dweight,
            f"{self.op}_backward dbias": dbias,
            f"{self.op}_backward dbias alone": dbias,
        }
        if kind == "special":  # promised only at the granularity of a (k, c) slice: not compared elementwise
            del errors[f"{self.op}_backward dweight"]
        return errors

    def winograd_bounds(self, inputs, results, dtype, tiles):
        """Admissible errors of those results that were computed by Winograd's algorithm: {name: tile}."""
        p = self.problem(np.float64)
        x, weight, dy = magnitudes(inputs, "x", "weight", "dy")
        bias = magnitudes(inputs, "bias")[0] if self.bias else None
        errors = {}
        for name, tile in tiles.items():
            what = name.split()[1]
            if what == "y":
                errors[name] = _sum_error("forward", x, weight, bias, p, dtype, tile)
                errors[name] = bounds.activated(p.activation, results[name], errors[name], dtype)
            elif what == "dx":
                errors[name] = _sum_error("backward_input", dy, weight, None, p, dtype, tile)
            else:
                errors[name] = _weight_error(dy, x, p, dtype, tile)
        return errors

    def pairings(self, inputs, results):
        if self.options.get("activation") is not None:
            return ()
        constant = 0
        if self.bias:
            constant = dot(inputs["bias"], results[f"{self.op}_backward dbias"])
        return (
            dot(results[f"{self.op} y"], inputs["dy"]) - constant,
            dot(inputs["x"], results[f"{self.op}_backward dx"]),
            dot(inputs["weight"], results[f"{self.op}_backward dweight"]),
        )


def _weight_error(dy, x, p, dtype, tile):
    """|error| of a dweight by Winograd's algorithm, along both axes or one."""
    if tile == winograd.ONE_AXIS:
        return winograd1d_weight.backward_weight(dy, x, p, dtype)
    return winograd.backward_weight(dy, x, p, dtype, tile)


def _sum_error(direction, source, weight, bias, p, dtype, tile):
    """|error| of a y or dx by Winograd's algorithm, along both axes or one."""
    if tile == winograd.ONE_AXIS:
        return getattr(winograd1d, direction)(source, weight, bias, p, dtype)
    return getattr(winograd, direction)(source, weight, bias, p, dtype, tile)


class Transposed(Case):
    """conv_transpose{n}d and its backward pass."""

    def __init__(self, ndim, x, weight, *, bias=True, layout="contiguous", label="", **options):
        super().__init__(f"conv_transpose{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.weight, self.bias = ndim, x, weight, bias
        self.channels = weight[1] * options.get("groups", 1)
        self.backward_options = {k: v for k, v in options.items() if k != "output_padding"}

    directions = Convolution.directions
    chosen = Convolution.chosen

    def problem(self, dtype):
        bias = hidden(self.channels, dtype) if self.bias else None
        return ConvProblem.of_transpose(
            hidden(self.x, dtype),
            hidden(self.weight, dtype),
            bias,
            **self.options,
            ndim=self.ndim,
            op=self.op,
        )

    def describe(self, dtype):
        return self.problem(dtype).name

    def draw(self, rng, dtype, make):
        return {
            "x": make(rng, self.x),
            "weight": make(rng, self.weight),
            "bias": make(rng, self.channels) if self.bias else None,
            "dy": make(rng, self.problem(dtype).x_shape),
        }

    def run(self, fc, inputs, algorithm="auto"):
        x, weight, bias, dy = inputs["x"], inputs["weight"], inputs["bias"], inputs["dy"]
        y = getattr(fc, self.op)(x, weight, bias, **self.options)
        dx, dweight, dbias = getattr(fc, f"{self.op}_backward")(dy, x, weight, **self.backward_options)
        return {
            f"{self.op} y": y,
            f"{self.op}_backward dx": dx,
            f"{self.op}_backward dweight": dweight,
            f"{self.op}_backward dbias": dbias,
        }

    def bounds(self, inputs, results, dtype, kind):
        if kind == "exact":
            return dict.fromkeys(results, 0.0)
        absolute = {name: None if a is None else np.abs(a) for name, a in inputs.items()}
        p, magnitude = self.problem(np.float64), self.run(the_reference(), absolute)
        pixels = p.N * math.prod(p.out)
        lengths = (p.K // p.groups * p.taps + 1, p.C // p.groups * p.taps, pixels, p.N * math.prod(p.size))
        return {
            name: bounds.bound(magnitude[name], length, dtype) for name, length in zip(magnitude, lengths)
        }

    def winograd_bounds(self, inputs, results, dtype, tiles):
        """As for `Convolution`, of which this is the adjoint: x stands for its dy, dy for its x."""
        p = self.problem(np.float64)
        x, weight, dy = magnitudes(inputs, "x", "weight", "dy")
        bias = magnitudes(inputs, "bias")[0] if self.bias else None
        errors = {}
        for name, tile in tiles.items():
            what = name.split()[1]
            if what == "y":
                errors[name] = _sum_error("backward_input", x, weight, bias, p, dtype, tile)
            elif what == "dx":
                errors[name] = _sum_error("forward", dy, weight, None, p, dtype, tile)
            else:
                errors[name] = _weight_error(x, dy, p, dtype, tile)
        return errors

    pairings = Convolution.pairings


class Columns(Case):
    """im2col and col2im."""

    functions = ("im2col", "col2im")

    def __init__(self, x, kernel_size, *, layout="contiguous", label="", **options):
        super().__init__("im2col", layout=layout, label=label, **options)
        self.x, self.kernel_size = x, kernel_size

    def problem(self, dtype):
        return ConvProblem.of_im2col(hidden(self.x, dtype), self.kernel_size, **self.options)

    def describe(self, dtype):
        return self.problem(dtype).name

    def draw(self, rng, dtype, make):
        return {"x": make(rng, self.x), "cols": make(rng, self.problem(dtype).columns_shape)}

    def run(self, fc, inputs, algorithm="auto"):
        return {
            "im2col cols": fc.im2col(inputs["x"], self.kernel_size, **self.options),
            "col2im x": fc.col2im(inputs["cols"], self.x[2:], self.kernel_size, **self.options),
        }

    def bounds(self, inputs, results, dtype, kind):
        if kind == "exact":
            return dict.fromkeys(results, 0.0)
        overlapping = the_reference().col2im(
            np.abs(inputs["cols"]), self.x[2:], self.kernel_size, **self.options
        )
        return {"im2col cols": 0.0, "col2im x": bounds.bound(overlapping, self.problem(dtype).taps, dtype)}

    def pairings(self, inputs, results):
        return (dot(results["im2col cols"], inputs["cols"]), dot(inputs["x"], results["col2im x"]))
