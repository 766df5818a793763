"""Initial values for parameters, as arrays: what PyTorch's layers start from, and the other usual schemes.

Every function takes a shape, a `Generator` (or a seed, or None for a fresh one) and a dtype. The fans of a
weight `(out, in, *kernel)` are fan_in = in * prod(kernel) and fan_out = out * prod(kernel).
"""

import math

import numpy as np


def fans(shape):
    """(fan_in, fan_out) of a weight of this shape; ValueError below two axes."""
    if len(shape) < 2:
        raise ValueError(f"init.fans: shape {tuple(shape)} has {len(shape)} axes (need at least 2)")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def uniform(shape, low, high, *, rng=None, dtype=np.float32):
    """Uniform values in [low, high)."""
    values = np.random.default_rng(rng).random(shape, dtype=dtype)
    values *= high - low
    values += low
    return values


def normal(shape, std, *, rng=None, dtype=np.float32):
    """Normal values of mean 0 and standard deviation `std`."""
    values = np.random.default_rng(rng).standard_normal(shape, dtype=dtype)
    values *= std
    return values


def kaiming_uniform(shape, a=math.sqrt(5), *, rng=None, dtype=np.float32):
    """Uniform in +-sqrt(6 / ((1 + a^2) fan_in)). The default `a` is that of PyTorch's layers:
    +-1/sqrt(fan_in).

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers" (2015); `a` is the slope of a leaky ReLU, 0 of
    a ReLU.
    """
    bound = math.sqrt(6 / ((1 + a * a) * fans(shape)[0]))
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype)


def kaiming_normal(shape, a=0.0, *, mode="fan_in", rng=None, dtype=np.float32):
    """Normal, std sqrt(2 / ((1 + a^2) fan)); `mode`: "fan_in" or "fan_out". Source: as `kaiming_uniform`."""
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming_normal: mode is {mode!r} (need 'fan_in' or 'fan_out')")
    fan = fans(shape)[mode == "fan_out"]
    return normal(shape, math.sqrt(2 / ((1 + a * a) * fan)), rng=rng, dtype=dtype)


def xavier_uniform(shape, gain=1.0, *, rng=None, dtype=np.float32):
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)). Source: Glorot and Bengio (2010)."""
    bound = gain * math.sqrt(6 / sum(fans(shape)))
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype)


def xavier_normal(shape, gain=1.0, *, rng=None, dtype=np.float32):
    """Normal with std gain sqrt(2 / (fan_in + fan_out)). Source: Glorot and Bengio (2010)."""
    return normal(shape, gain * math.sqrt(2 / sum(fans(shape))), rng=rng, dtype=dtype)


def default_bias(size, weight_shape, *, rng=None, dtype=np.float32):
    """Bias of PyTorch's convolution and linear layers: uniform in +-1/sqrt(fan_in of the weight)."""
    bound = 1 / math.sqrt(fans(weight_shape)[0])
    return uniform((size,), -bound, bound, rng=rng, dtype=dtype)
