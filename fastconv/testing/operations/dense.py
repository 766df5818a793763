"""Linear layers and normalisation."""

import math

import numpy as np

from .. import bounds
from .case import Case, shape_name, the_reference
from .convolution import Convolution


class Linear(Case):
    """linear and its backward pass."""

    def __init__(self, x, out, bias=True, layout="contiguous"):
        super().__init__("linear", layout=layout)
        self.x, self.out, self.bias = x, out, bias

    def describe(self, dtype):
        return (
            f"linear:{shape_name(self.x)}_out{self.out}{'_bias' if self.bias else ''}_f{8 * dtype.itemsize}"
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
            the_reference(), {name: None if a is None else np.abs(a) for name, a in inputs.items()}
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
            f"batch_norm:{shape_name(self.x)}{'_training' if self.training else ''}"
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
        return f"local_response_norm:{shape_name(self.x)}_{parameters}_f{8 * dtype.itemsize}"

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
