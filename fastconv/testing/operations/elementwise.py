"""What is computed element by element or along one axis: activations, softmax, maxout, dropout."""

import numpy as np

from .. import bounds
from ..arrays import real_inputs, special_inputs
from .case import Case, options_name, shape_name, the_reference


class Activation(Case):
    """An elementwise function and its backward pass."""

    kinds = ("exact", "real", "special")

    def __init__(self, op, x, **options):
        super().__init__(op, **options)
        self.x = x

    def describe(self, dtype):
        return f"{self.op}:{shape_name(self.x)}{options_name(self.options)}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        x = make(rng, self.x) * (4.0 if make is real_inputs else 1.0)
        y = getattr(the_reference(), self.op)(np.asarray(x), **self.options)  # backward is a function of y
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
        return f"{self.op}:{shape_name(self.x)}_axis{self.axis}_f{8 * dtype.itemsize}"

    def draw(self, rng, dtype, make):
        x = np.asarray(make(rng, self.x) * 4.0)
        if make is special_inputs and x.ndim:
            x[..., : x.shape[-1] // 2] = real_inputs(rng, x[..., : x.shape[-1] // 2].shape)
        y = getattr(the_reference(), self.op)(np.asarray(real_inputs(rng, self.x)), axis=self.axis)
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
        return f"maxout:{shape_name(self.x)}_pieces{self.pieces}_axis{self.axis}_f{8 * dtype.itemsize}"

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
        return f"dropout:{shape_name(self.x)}_p{self.p}_f{8 * dtype.itemsize}"

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
