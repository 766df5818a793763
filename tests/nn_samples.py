"""Inputs and weights for the tests of layers."""

import numpy as np


def whole(shape, seed=0, dtype=np.float32):
    """Integers of -4 to 4: sums of a few hundred products of them are exact in float32."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def real(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def fill_with_integers(layer, seed=100):
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = whole(parameter.shape, seed + number, parameter.dtype)
    return layer
