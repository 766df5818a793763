"""Losses."""

import numpy as np

from .. import bounds
from ..arrays import real_inputs
from .case import Case, options_name, shape_name


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
            f"{self.op}:{shape_name(self.x)}_{kind}{'_weighted' if self.weighted else ''}"
            f"{options_name(self.options)}_f{8 * dtype.itemsize}"
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
