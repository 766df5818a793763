"""Layers without parameters that work element by element or along one axis: activations, Softmax, Maxout.

A backward closure keeps the output only. `inplace` is accepted where PyTorch has it and changes nothing:
inputs are never written.
"""

from .. import functional as F
from .module import Module


class _Activation(Module):
    """y = name(x, *options); the gradient is computed from y."""

    name = None
    options = ()

    def predict(self, x):
        return getattr(F, self.name)(x, *self.options)

    def forward(self, x):
        y, options = self.predict(x), self.options

        def backward(dy):
            return getattr(F, f"{self.name}_backward")(dy, y, *options)

        return y, backward


class ReLU(_Activation):
    """max(x, 0)"""

    name = "relu"

    def __init__(self, inplace=False):
        pass


class LeakyReLU(_Activation):
    """x where x > 0, else negative_slope * x"""

    name = "leaky_relu"

    def __init__(self, negative_slope=0.01, inplace=False):
        self.options = (negative_slope,)

    def extra_repr(self):
        return f"negative_slope={self.options[0]}"


class ELU(_Activation):
    """x where x > 0, else alpha * (exp(x) - 1)"""

    name = "elu"

    def __init__(self, alpha=1.0, inplace=False):
        self.options = (alpha,)

    def extra_repr(self):
        return f"alpha={self.options[0]}"


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))"""

    name = "sigmoid"


class Tanh(_Activation):
    """tanh(x)"""

    name = "tanh"


class Softmax(_Activation):
    """exp(x) / sum(exp(x)) along axis `dim`"""

    name = "softmax"

    def __init__(self, dim=-1):
        self.options = (dim,)

    def extra_repr(self):
        return f"dim={self.options[0]}"


class LogSoftmax(Softmax):
    """log(softmax(x)) along axis `dim`, for `NLLLoss`"""

    name = "log_softmax"


class Maxout(Module):
    """Maximum of every `pieces` consecutive channels along `axis`.

    Source: Goodfellow et al., "Maxout networks" (2013).
    """

    def __init__(self, pieces, axis=1):
        self.pieces, self.axis = pieces, axis

    def predict(self, x):
        return F.maxout(x, self.pieces, self.axis)[0]

    def forward(self, x):
        y, indices = F.maxout(x, self.pieces, self.axis)
        pieces, axis = self.pieces, self.axis

        def backward(dy):
            return F.maxout_backward(dy, indices, pieces, axis)

        return y, backward

    def extra_repr(self):
        return f"pieces={self.pieces}, axis={self.axis}"
