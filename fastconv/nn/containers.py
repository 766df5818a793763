"""Layers made of layers: Sequential, Residual, Parallel; and Flatten, which only changes the shape."""

import functools
import math

from .. import _arithmetic as arithmetic
from .module import Module


class _Container(Module):
    """Children that were given in order, named or numbered."""

    def __init__(self, *layers, **named):
        if len(layers) == 1 and isinstance(layers[0], dict) and not named:
            layers, named = (), layers[0]
        if layers and named:
            raise TypeError(f"{type(self).__name__}: got unnamed and named layers (need one or the other)")
        for name, layer in (named or dict(enumerate(layers))).items():
            self._add(str(name), layer)

    def _add(self, name, layer):
        if not isinstance(layer, Module):
            raise TypeError(
                f"{type(self).__name__}: layer {name!r} is {type(layer).__name__} (need an nn.Module)"
            )
        if "." in name or not name or hasattr(self, name):
            raise ValueError(
                f"{type(self).__name__}: {name!r} cannot be a layer's name "
                "(need one without dots that is not taken)"
            )
        setattr(self, name, layer)

    def _layers(self):
        return [child for _, child in self.named_children()]

    def __len__(self):
        return len(self._layers())

    def __iter__(self):
        return iter(self._layers())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(dict(list(self.named_children())[index]))
        return self._layers()[index]


class Sequential(_Container):
    """Layers one after another: `Sequential(a, b)`, `Sequential(conv=a, relu=b)`, or from a dictionary.

    Unnamed ones are called "0", "1", ... `model[i]` is a layer, `model[i:j]` a Sequential of the same layers
    under the same names.
    """

    def append(self, layer):
        """Add `layer` at the end, named by its number; returns the container."""
        self._add(str(len(self)), layer)
        return self

    def predict(self, x):
        for layer in self:
            x = layer.predict(x)
        return x

    def forward(self, x):
        steps = []
        for layer in self:
            x, step = layer.forward(x)
            steps.append(step)

        def backward(dy):
            for step in reversed(steps):
                dy = step(dy)
            return dy

        return x, backward


class Residual(Module):
    """y = main(x) + shortcut(x); without a shortcut y = main(x) + x.

    Source: He et al., "Deep residual learning" (2015).
    """

    def __init__(self, main, shortcut=None):
        self.main, self.shortcut = main, shortcut

    def _sum(self, y, skipped):
        if y.shape != skipped.shape:
            raise ValueError(
                f"Residual: main gives shape {y.shape}, the shortcut {skipped.shape} (need equal shapes)"
            )
        return arithmetic.add(y, skipped)

    def predict(self, x):
        return self._sum(self.main.predict(x), x if self.shortcut is None else self.shortcut.predict(x))

    def forward(self, x):
        y, main = self.main.forward(x)
        if self.shortcut is None:
            return self._sum(y, x), lambda dy: arithmetic.add(main(dy), dy)
        skipped, shortcut = self.shortcut.forward(x)
        return self._sum(y, skipped), lambda dy: arithmetic.add(main(dy), shortcut(dy))


class Parallel(_Container):
    """Every branch sees `x (N, C, ...)`; their outputs are joined along the channels, axis 1.

    Named as in `Sequential`. Source: the inception module of Szegedy et al., "Going deeper with convolutions"
    (2014).
    """

    def _join(self, outputs):
        if len({(y.shape[0], *tuple(y.shape)[2:]) for y in outputs}) != 1:
            raise ValueError(
                f"Parallel: the branches give shapes {', '.join(str(y.shape) for y in outputs)} "
                "(need at least one, equal on all axes but 1)"
            )
        return arithmetic.concatenate(outputs, axis=1)

    def predict(self, x):
        return self._join([branch.predict(x) for branch in self])

    def forward(self, x):
        pairs = [branch.forward(x) for branch in self]
        y = self._join([output for output, _ in pairs])
        sizes = [output.shape[1] for output, _ in pairs]
        steps = [step for _, step in pairs]  # all that the closure keeps: the outputs go

        def backward(dy):
            gradients = (step(part) for step, part in zip(steps, arithmetic.split(dy, sizes, axis=1)))
            return functools.reduce(arithmetic.add, gradients)

        return y, backward


class Flatten(Module):
    """Axes `start_dim` to `end_dim` as one: `(N, C, H, W)` becomes `(N, C*H*W)`."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def predict(self, x):
        axes = range(x.ndim)
        if (
            self.start_dim not in range(-x.ndim, x.ndim)
            or self.end_dim not in range(-x.ndim, x.ndim)
            or (axes[self.start_dim] > axes[self.end_dim])
        ):
            raise ValueError(
                f"Flatten: axes {self.start_dim} to {self.end_dim} of an array with {x.ndim} "
                "(need existing axes in order)"
            )
        start, end = axes[self.start_dim], axes[self.end_dim] + 1
        shape = tuple(x.shape)
        return arithmetic.reshape(x, (*shape[:start], math.prod(shape[start:end]), *shape[end:]))

    def forward(self, x):
        shape = tuple(x.shape)
        return self.predict(x), lambda dy: arithmetic.reshape(dy, shape)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
