"""What a case is, a class for every family of operations.

A case is one call of an operation and of its backward pass. It knows how to draw its inputs, how to run
itself on a namespace of the public functions, how far each result may be off, and, where backward is the
adjoint of a linear forward, which sums must agree exactly. The list of cases is next door.
"""

import itertools
import math
import zlib

import numpy as np

from .._errors import UnsupportedError
from .._problem import ConvProblem, PoolProblem
from . import bounds, winograd, winograd1d, winograd1d_weight
from .arrays import DRAW, exact_inputs, lay_out, real_inputs, special_inputs


class Case:
    """One call: operation, shapes, options, layout of the inputs; `label` says where it comes from.

    functions   the public functions that `run` calls. kinds       the kinds of inputs that make sense:
    "exact" (small integers), "real", "special" (with NaN and inf).
    """

    kinds = ("exact", "real")

    def __init__(self, op, *, layout="contiguous", label="", **options):
        self.op, self.layout, self.label, self.options = op, layout, label, options

    @property
    def functions(self):
        return (self.op, f"{self.op}_backward")

    def describe(self, dtype):
        """The problem's name, or the like of it."""
        raise NotImplementedError

    def draw(self, rng, dtype, make):
        """The arrays of the call, by name; `make(rng, shape)` draws what may be integers, reals, special."""
        raise NotImplementedError

    def run(self, fc, inputs, algorithm="auto"):
        """Results by "function result", from a namespace of the public functions."""
        raise NotImplementedError

    def bounds(self, inputs, results, dtype, kind):
        """Admissible errors by "function result", from float64 inputs and expected results; 0 means equal.

        These are the bounds of direct sums.
        """
        raise NotImplementedError

    def chosen(self, fc, dtype, algorithm="auto"):
        """By "function result" what a namespace computes it with, None if the named algorithm refuses.

        Results that can be had in one way only are left out.
        """
        return {}

    def pairings(self, inputs, results):
        """Numbers that are equal because backward is the adjoint of forward; () where it is not linear."""
        return ()

    def name(self, dtype=np.float32):
        """One line: test id, row of a report."""
        parts = [
            self.describe(np.dtype(dtype)),
            "" if self.layout == "contiguous" else self.layout,
            self.label,
        ]
        return "_".join(part for part in parts if part)

    def __repr__(self):
        return f"<{self.name()}>"

    def inputs(self, dtype, kind="real"):
        """The arrays in the case's layout, their floats in dtype; the same on every call."""
        seed = zlib.crc32(f"{self.describe(np.dtype(np.float64))} {kind}".encode())
        arrays = self.draw(np.random.default_rng(seed), np.dtype(dtype), DRAW[kind])
        return {
            name: None if a is None else lay_out(a.astype(dtype) if a.dtype.kind == "f" else a, self.layout)
            for name, a in arrays.items()
        }


def widened(inputs):
    """Plain float64 copies of the floats in a case's inputs."""
    return {
        name: np.array(a, np.float64, order="C") if a is not None and a.dtype.kind == "f" else a
        for name, a in inputs.items()
    }


def _dot(a, b):
    """<a, b> as a Python integer: exact for integer-valued arrays."""
    return int(
        np.vdot(np.asarray(a, np.float64).astype(np.int64), np.asarray(b, np.float64).astype(np.int64))
    )


def _hidden(shape, dtype):
    """An array of any shape that takes no memory, for the parser to look at."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _known(fc, direction, algorithm):
    """Whether a direction has an algorithm of this name: not every one computes every gradient."""
    return algorithm == "auto" or algorithm in fc.algorithms(direction)


def _how(algorithm):
    return {} if algorithm == "auto" else {"algorithm": algorithm}


def _reference():
    from .. import reference

    return reference


def _magnitudes(inputs, *names):
    """Absolute values of float64 inputs; what is not finite has no bound, and does not spoil others'."""
    return [np.nan_to_num(np.abs(inputs[name]), nan=0.0, posinf=0.0) for name in names]


# ---- convolution ----------------------------------------------------------------------------------------


class Convolution(Case):
    """conv{n}d and its backward pass."""

    kinds = ("exact", "real", "special")

    def __init__(self, ndim, x, weight, *, bias=True, layout="contiguous", label="", **options):
        super().__init__(f"conv{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.weight, self.bias = ndim, x, weight, bias
        self.channels = weight[0]
        self.backward_options = {k: v for k, v in options.items() if k != "activation"}

    def problem(self, dtype):
        bias = _hidden(self.weight[0], dtype) if self.bias else None
        return ConvProblem.of(
            _hidden(self.x, dtype),
            _hidden(self.weight, dtype),
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
        bias = _hidden(self.channels, dtype) if self.bias else None
        arrays = _hidden(self.x, dtype), _hidden(self.weight, dtype), bias
        found = {}
        if not hasattr(fc, "plan"):  # a namespace of a few functions, to test the tests
            return found
        for name, direction in self.directions.items():
            result = f"{self.op} y" if name == "y" else f"{self.op}_backward {name}"
            if not _known(fc, direction.format(self.op), algorithm):
                found[result] = None
                continue
            try:
                plan = fc.plan(direction.format(self.op), *arrays, **self.options, **_how(algorithm))
                found[result] = plan.algorithm
            except UnsupportedError:
                found[result] = None
        return found

    def run(self, fc, inputs, algorithm="auto"):
        x, weight, bias, dy = inputs["x"], inputs["weight"], inputs["bias"], inputs["dy"]
        how = _how(algorithm)
        results = {}
        try:
            if _known(fc, self.op, algorithm):
                results[f"{self.op} y"] = getattr(fc, self.op)(x, weight, bias, **self.options, **how)
        except UnsupportedError:
            if algorithm == "auto":
                raise
        backward = getattr(fc, f"{self.op}_backward")
        for direction, mask in (("dx", (True, False, True)), ("dweight", (False, True, True))):
            if not _known(fc, self.directions[direction].format(self.op), algorithm):
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
        p, reference = self.problem(np.float64), _reference()
        x, weight, dy = _magnitudes(inputs, "x", "weight", "dy")
        bias = _magnitudes(inputs, "bias")[0] if self.bias else None
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
        x, weight, dy = _magnitudes(inputs, "x", "weight", "dy")
        bias = _magnitudes(inputs, "bias")[0] if self.bias else None
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
            constant = _dot(inputs["bias"], results[f"{self.op}_backward dbias"])
        return (
            _dot(results[f"{self.op} y"], inputs["dy"]) - constant,
            _dot(inputs["x"], results[f"{self.op}_backward dx"]),
            _dot(inputs["weight"], results[f"{self.op}_backward dweight"]),
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
        bias = _hidden(self.channels, dtype) if self.bias else None
        return ConvProblem.of_transpose(
            _hidden(self.x, dtype),
            _hidden(self.weight, dtype),
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
        p, magnitude = self.problem(np.float64), self.run(_reference(), absolute)
        pixels = p.N * math.prod(p.out)
        lengths = (p.K // p.groups * p.taps + 1, p.C // p.groups * p.taps, pixels, p.N * math.prod(p.size))
        return {
            name: bounds.bound(magnitude[name], length, dtype) for name, length in zip(magnitude, lengths)
        }

    def winograd_bounds(self, inputs, results, dtype, tiles):
        """As for `Convolution`, of which this is the adjoint: x stands for its dy, dy for its x."""
        p = self.problem(np.float64)
        x, weight, dy = _magnitudes(inputs, "x", "weight", "dy")
        bias = _magnitudes(inputs, "bias")[0] if self.bias else None
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
        return ConvProblem.of_im2col(_hidden(self.x, dtype), self.kernel_size, **self.options)

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
        overlapping = _reference().col2im(
            np.abs(inputs["cols"]), self.x[2:], self.kernel_size, **self.options
        )
        return {"im2col cols": 0.0, "col2im x": bounds.bound(overlapping, self.problem(dtype).taps, dtype)}

    def pairings(self, inputs, results):
        return (_dot(results["im2col cols"], inputs["cols"]), _dot(inputs["x"], results["col2im x"]))


# ---- pooling --------------------------------------------------------------------------------------------


class MaxPool(Case):
    """max_pool{n}d with indices and its backward pass. Nothing is rounded: always equal."""

    kinds = ("exact", "real", "special")

    def __init__(self, ndim, x, kernel_size, *, layout="contiguous", label="", **options):
        super().__init__(f"max_pool{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.arguments = ndim, x, (kernel_size,)

    def problem(self, dtype):
        return PoolProblem.of(
            _hidden(self.x, dtype), *self.arguments, **self.options, ndim=self.ndim, op=self.op
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
            _, indices = getattr(_reference(), self.op)(
                inputs["x"], *self.arguments, **self.options, return_indices=True
            )
            dx = getattr(_reference(), self.functions[1])(np.abs(inputs["dy"]), indices, self.x)
            taps = math.prod(self.problem(dtype).kernel)
            errors[f"{self.functions[1]} dx"] = bounds.bound(dx, taps, dtype)
        return errors

    def pairings(self, inputs, results):
        y = results[f"{self.op} y"]
        inside = np.where(np.isfinite(y), y, 0)  # -inf: the window was all padding
        return (_dot(inside, inputs["dy"]), _dot(inputs["x"], results[f"{self.functions[1]} dx"]))


class AdaptiveMaxPool(MaxPool):
    """adaptive_max_pool{n}d with indices and its backward pass."""

    def __init__(self, ndim, x, output_size, *, layout="contiguous", label=""):
        super().__init__(ndim, x, output_size, layout=layout, label=label)
        self.op = f"adaptive_max_pool{ndim}d"

    def problem(self, dtype):
        return PoolProblem.of_adaptive(_hidden(self.x, dtype), *self.arguments, ndim=self.ndim, op=self.op)


class AvgPool(Case):
    """avg_pool{n}d and its backward pass: exact on integers where every divisor is a power of two."""

    def __init__(self, ndim, x, kernel_size, *, layout="contiguous", label="", **options):
        super().__init__(f"avg_pool{ndim}d", layout=layout, label=label, **options)
        self.ndim, self.x, self.arguments = ndim, x, (kernel_size,)

    def problem(self, dtype):
        return PoolProblem.of(
            _hidden(self.x, dtype), *self.arguments, **self.options, ndim=self.ndim, op=self.op
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
        magnitude = self.run(_reference(), {name: np.abs(a) for name, a in inputs.items()})
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
            _dot(np.multiply(results[f"{self.op} y"], scale, dtype=np.float64), inputs["dy"]),
            _dot(inputs["x"], np.multiply(results[f"{self.op}_backward dx"], scale, dtype=np.float64)),
        )


class AdaptiveAvgPool(AvgPool):
    """adaptive_avg_pool{n}d and its backward pass."""

    def __init__(self, ndim, x, output_size, *, layout="contiguous", label=""):
        super().__init__(ndim, x, output_size, layout=layout, label=label)
        self.op = f"adaptive_avg_pool{ndim}d"

    def problem(self, dtype):
        return PoolProblem.of_adaptive(_hidden(self.x, dtype), *self.arguments, ndim=self.ndim, op=self.op)

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        return {
            f"{self.op} y": forward(inputs["x"], *self.arguments),
            f"{self.op}_backward dx": backward(inputs["dy"], self.x),
        }


# ---- elementwise, softmax -------------------------------------------------------------------------------


def _shape_name(shape):
    return "x".join(map(str, shape)) if shape else "scalar"


def _options_name(options):
    return "".join(f"_{name}{value}" for name, value in options.items())


class Activation(Case):
    """An elementwise function and its backward pass."""

    kinds = ("exact", "real", "special")

    def __init__(self, op, x, **options):
        super().__init__(op, **options)
        self.x = x

    def describe(self, dtype):
        return f"{self.op}:{_shape_name(self.x)}{_options_name(self.options)}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        x = make(rng, self.x) * (4.0 if make is real_inputs else 1.0)
        y = getattr(_reference(), self.op)(np.asarray(x), **self.options)  # backward is a function of y
        return {"x": np.asarray(x), "y": np.asarray(y), "dy": np.asarray(real_inputs(rng, self.x))}

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        return {
            f"{self.op} y": forward(inputs["x"], **self.options),
            f"{self.op}_backward dx": backward(inputs["dy"], inputs["y"], **self.options),
        }

    def bounds(self, inputs, results, dtype, kind):
        parameter = next(iter(self.options.values()), {"leaky_relu": 0.01, "elu": 1.0}.get(self.op, 0.0))
        exact = self.op == "relu"
        with np.errstate(all="ignore"):
            y_error = 0.0 if exact else bounds.function(results[f"{self.op} y"], dtype)
            dx_error = (
                0.0
                if exact
                else bounds.activation_backward(self.op, inputs["dy"], inputs["y"], parameter, dtype)
            )
        return {f"{self.op} y": y_error, f"{self.op}_backward dx": dx_error}


class Softmax(Case):
    """softmax or log_softmax and its backward pass."""

    kinds = ("real", "special")

    def __init__(self, op, x, axis=-1, layout="contiguous"):
        super().__init__(op, layout=layout, axis=axis)
        self.x, self.axis = x, axis

    def describe(self, dtype):
        return f"{self.op}:{_shape_name(self.x)}_axis{self.axis}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        x = np.asarray(make(rng, self.x) * 4.0)
        if make is special_inputs and x.ndim:
            x[..., : x.shape[-1] // 2] = real_inputs(rng, x[..., : x.shape[-1] // 2].shape)
        y = getattr(_reference(), self.op)(np.asarray(real_inputs(rng, self.x)), axis=self.axis)
        return {"x": x, "y": np.asarray(y), "dy": np.asarray(real_inputs(rng, self.x))}

    def run(self, fc, inputs, algorithm="auto"):
        forward, backward = (getattr(fc, name) for name in self.functions)
        return {
            f"{self.op} y": forward(inputs["x"], axis=self.axis),
            f"{self.op}_backward dx": backward(inputs["dy"], inputs["y"], axis=self.axis),
        }

    def bounds(self, inputs, results, dtype, kind):
        x, y, dy = (np.atleast_1d(inputs[name]) for name in ("x", "y", "dy"))
        log = self.op == "log_softmax"
        return {
            f"{self.op} y": bounds.softmax(x, self.axis, log, dtype).reshape(self.x),
            f"{self.op}_backward dx": bounds.softmax_backward(dy, y, self.axis, log, dtype).reshape(self.x),
        }


class Maxout(Case):
    """maxout and its backward pass. Nothing is rounded: always equal."""

    kinds = ("exact", "real", "special")

    def __init__(self, x, pieces, axis=1, layout="contiguous"):
        super().__init__("maxout", layout=layout)
        self.x, self.pieces, self.axis = x, pieces, axis

    def describe(self, dtype):
        return f"maxout:{_shape_name(self.x)}_pieces{self.pieces}_axis{self.axis}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        y = list(self.x)
        y[self.axis] //= self.pieces
        return {"x": make(rng, self.x), "dy": real_inputs(rng, y)}

    def run(self, fc, inputs, algorithm="auto"):
        y, indices = fc.maxout(inputs["x"], self.pieces, axis=self.axis)
        dx = fc.maxout_backward(inputs["dy"], indices, self.pieces, axis=self.axis)
        return {"maxout y": y, "maxout indices": indices, "maxout_backward dx": dx}

    def bounds(self, inputs, results, dtype, kind):
        return dict.fromkeys(results, 0.0)


class Dropout(Case):
    """dropout with a seeded generator and its backward pass."""

    def __init__(self, x, p, layout="contiguous"):
        super().__init__("dropout", layout=layout)
        self.x, self.p = x, p

    def describe(self, dtype):
        return f"dropout:{_shape_name(self.x)}_p{self.p}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        return {"x": np.asarray(make(rng, self.x)), "dy": np.asarray(make(rng, self.x))}

    def run(self, fc, inputs, algorithm="auto"):
        y, mask = fc.dropout(inputs["x"], self.p, rng=7)
        return {
            "dropout y": y,
            "dropout mask": mask,
            "dropout_backward dx": fc.dropout_backward(inputs["dy"], mask, self.p),
        }

    def bounds(self, inputs, results, dtype, kind):
        exact = kind == "exact" and self.p in (0.0, 0.5, 0.75, 1.0)
        return {
            name: 0.0 if exact or name == "dropout mask" else bounds.bound(np.abs(result), 0, dtype)
            for name, result in results.items()
        }


# ---- losses ---------------------------------------------------------------------------------------------


class Loss(Case):
    """A loss and its gradient, which come from one call."""

    kinds = ("real",)

    def __init__(
        self,
        op,
        x,
        *,
        layout="contiguous",
        target="classes",
        target_dtype=np.int64,
        weighted=False,
        **options,
    ):
        super().__init__(op, layout=layout, **options)
        self.x, self.target, self.weighted = x, target, weighted
        self.target_dtype = np.dtype(target_dtype)

    functions = property(lambda self: (self.op,))

    def describe(self, dtype):
        kind = self.target if self.target != "classes" else self.target_dtype.name
        return (
            f"{self.op}:{_shape_name(self.x)}_{kind}{'_weighted' if self.weighted else ''}"
            f"{_options_name(self.options)}_f{8 * dtype.itemsize}"
        )

    def draw(self, rng, dtype, make):
        arrays = {"x": 3 * real_inputs(rng, self.x)}
        if self.op in ("softmax_cross_entropy", "nll", "hinge"):
            classes = self.x[1]
            shape = (self.x[0], *self.x[2:])
            if self.target == "probabilities":
                arrays["target"] = (
                    rng.dirichlet(np.ones(classes), shape).swapaxes(1, -1).reshape(self.x)
                    if len(shape) < 3
                    else np.moveaxis(rng.dirichlet(np.ones(classes), shape), -1, 1)
                )
            else:
                target = rng.integers(0, classes, shape)
                if self.target == "ignored":
                    target = np.full(shape, self.options.get("ignore_index", -100))
                elif self.op != "hinge" and self.target_dtype.kind == "i" and target.size:
                    target.flat[::3] = self.options.get("ignore_index", -100)
                arrays["target"] = target.astype(self.target_dtype)
            if self.op == "nll":
                arrays["x"] = np.log(rng.dirichlet(np.ones(classes), shape))
                arrays["x"] = np.moveaxis(arrays["x"], -1, 1)
            if self.weighted:
                arrays["weight"] = rng.random(classes) + 0.25
        else:
            arrays["target"] = rng.random(self.x)
            if self.weighted:
                arrays["weight"] = rng.random(self.x)
                arrays["pos_weight"] = 3 * rng.random(self.x[-1:]) + 0.25
        return arrays

    def run(self, fc, inputs, algorithm="auto"):
        more = {name: inputs[name] for name in ("weight", "pos_weight") if name in inputs}
        loss, dinput = getattr(fc, self.op)(inputs["x"], inputs["target"], **more, **self.options)
        return {f"{self.op} loss": loss, f"{self.op} dinput": dinput}

    def bounds(self, inputs, results, dtype, kind):
        x, target, reduction = inputs["x"], inputs["target"], self.options.get("reduction", "mean")
        if self.op == "squared_error":
            errors = bounds.squared_error(x - target, reduction, dtype)
        elif self.op == "sigmoid_cross_entropy":
            errors = bounds.sigmoid_cross_entropy(
                x, target, inputs.get("weight", 1.0), inputs.get("pos_weight", 1.0), reduction, dtype
            )
        else:
            errors = self._class_bounds(x, target, inputs.get("weight"), reduction, dtype)
        return {f"{self.op} loss": errors[0], f"{self.op} dinput": errors[1]}

    def _class_bounds(self, x, target, weight, reduction, dtype):
        shape = (1, x.shape[1], *[1] * (x.ndim - 2))
        weight = np.ones(shape) if weight is None else weight.reshape(shape)
        if self.target == "probabilities":
            hot, count = target, x.size // x.shape[1]
        else:
            hot = (np.expand_dims(target.astype(np.int64), 1) == np.arange(x.shape[1]).reshape(shape)).astype(
                float
            )
            count = (weight * hot).sum()
        if self.op == "hinge":
            return bounds.hinge(x, hot, self.options.get("margin", 1.0), reduction, dtype)
        if self.op == "nll":
            return bounds.nll(x, weight * hot, reduction, dtype)
        smoothing = self.options.get("label_smoothing", 0.0)
        smoothed = (1 - smoothing) * hot + smoothing / x.shape[1] * hot.sum(axis=1, keepdims=True).round()
        return bounds.cross_entropy(x, weight * smoothed, reduction, count, dtype)


# ---- dense, normalisation -------------------------------------------------------------------------------


class Linear(Case):
    """linear and its backward pass."""

    def __init__(self, x, out, bias=True, layout="contiguous"):
        super().__init__("linear", layout=layout)
        self.x, self.out, self.bias = x, out, bias

    def describe(self, dtype):
        return (
            f"linear:{_shape_name(self.x)}_out{self.out}{'_bias' if self.bias else ''}_f{8 * dtype.itemsize}"
        )

    def draw(self, rng, dtype, make):
        return {
            "x": make(rng, self.x),
            "weight": make(rng, (self.out, self.x[-1])),
            "bias": make(rng, self.out) if self.bias else None,
            "dy": make(rng, (*self.x[:-1], self.out)),
        }

    def run(self, fc, inputs, algorithm="auto"):
        y = fc.linear(inputs["x"], inputs["weight"], inputs["bias"])
        dx, dweight, dbias = fc.linear_backward(inputs["dy"], inputs["x"], inputs["weight"])
        return {
            "linear y": y,
            "linear_backward dx": dx,
            "linear_backward dweight": dweight,
            "linear_backward dbias": dbias,
        }

    def bounds(self, inputs, results, dtype, kind):
        if kind == "exact":
            return dict.fromkeys(results, 0.0)
        magnitude = self.run(
            _reference(), {name: None if a is None else np.abs(a) for name, a in inputs.items()}
        )
        rows = math.prod(self.x[:-1])
        lengths = (self.x[-1] + 1, self.out, rows, rows)
        return {
            name: bounds.bound(magnitude[name], length, dtype) for name, length in zip(magnitude, lengths)
        }

    pairings = Convolution.pairings


class BatchNorm(Case):
    """batch_norm, its running statistics, and its backward pass."""

    kinds = ("real",)

    def __init__(self, x, training, affine=True, layout="contiguous", momentum=0.1, eps=1e-5):
        super().__init__("batch_norm", layout=layout)
        self.x, self.training, self.affine, self.momentum, self.eps = x, training, affine, momentum, eps

    def describe(self, dtype):
        return (
            f"batch_norm:{_shape_name(self.x)}{'_training' if self.training else ''}"
            f"{'' if self.affine else '_plain'}_f{8 * dtype.itemsize}"
        )

    def draw(self, rng, dtype, make):
        C = self.x[1]
        return {
            "x": 2 * make(rng, self.x) + 1,
            "dy": make(rng, self.x),
            "weight": make(rng, C) if self.affine else None,
            "bias": make(rng, C) if self.affine else None,
            "mean": make(rng, C),
            "var": rng.random(C) + 0.5,
        }

    def run(self, fc, inputs, algorithm="auto"):
        x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
        mean, var = (np.array(inputs[name]) for name in ("mean", "var"))  # training writes to them
        y = fc.batch_norm(
            x, weight, bias, mean, var, training=self.training, momentum=self.momentum, eps=self.eps
        )
        dx, dweight, dbias = fc.batch_norm_backward(
            inputs["dy"], x, weight, inputs["mean"], inputs["var"], training=self.training, eps=self.eps
        )
        mean, var = (a.astype(a.dtype.newbyteorder("=")) for a in (mean, var))
        return {
            "batch_norm y": y,
            "batch_norm running_mean": mean,
            "batch_norm running_var": var,
            "batch_norm_backward dx": dx,
            "batch_norm_backward dweight": dweight,
            "batch_norm_backward dbias": dbias,
        }

    def bounds(self, inputs, results, dtype, kind):
        errors = bounds.batch_norm(
            inputs["x"],
            inputs["weight"],
            inputs["bias"],
            inputs["mean"],
            inputs["var"],
            self.training,
            self.momentum,
            self.eps,
            dtype,
        )
        errors += bounds.batch_norm_backward(
            inputs["dy"],
            inputs["x"],
            inputs["weight"],
            inputs["mean"],
            inputs["var"],
            self.training,
            self.eps,
            dtype,
        )
        return dict(zip(results, errors))


class LocalResponseNorm(Case):
    """local_response_norm and its backward pass."""

    kinds = ("real",)

    def __init__(self, x, size, alpha=1e-4, beta=0.75, k=1.0, layout="contiguous"):
        super().__init__("local_response_norm", layout=layout)
        self.x, self.parameters = x, (size, alpha, beta, k)

    def describe(self, dtype):
        parameters = "_".join(
            f"{name}{value}" for name, value in zip(("size", "alpha", "beta", "k"), self.parameters)
        )
        return f"local_response_norm:{_shape_name(self.x)}_{parameters}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        return {"x": make(rng, self.x), "dy": make(rng, self.x)}

    def run(self, fc, inputs, algorithm="auto"):
        return {
            "local_response_norm y": fc.local_response_norm(inputs["x"], *self.parameters),
            "local_response_norm_backward dx": fc.local_response_norm_backward(
                inputs["dy"], inputs["x"], *self.parameters
            ),
        }

    def bounds(self, inputs, results, dtype, kind):
        x, dy, (size, alpha, beta, k) = inputs["x"], inputs["dy"], self.parameters
        squares = np.zeros((x.shape[0], x.shape[1] + size, *x.shape[2:]))  # cumulative, one channel early
        squares[:, 1 : x.shape[1] + 1] = np.cumsum(x * x, axis=1)
        squares[:, x.shape[1] + 1 :] = squares[:, x.shape[1] : x.shape[1] + 1]
        first = np.maximum(np.arange(x.shape[1]) - size // 2, 0)
        last = np.arange(x.shape[1]) - size // 2 + size
        s = k + alpha / size * (squares[:, last] - squares[:, first])
        terms = np.zeros_like(squares)
        terms[:, 1 : x.shape[1] + 1] = np.cumsum(np.abs(dy * x) * s ** (-beta - 1), axis=1)
        magnitude = (
            np.abs(dy) * s**-beta
            + 2 * alpha * beta / size * np.abs(x) * terms[:, x.shape[1] : x.shape[1] + 1]
        )
        return {
            "local_response_norm y": bounds.local_response_norm(x, s, size, beta, dtype),
            "local_response_norm_backward dx": bounds.local_response_norm_backward(
                magnitude, s, size, beta, dtype
            ),
        }
