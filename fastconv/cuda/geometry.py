"""A convolution and the gradient of its input as the same sum: which elements an output position reads,
axis by axis.

The forward convolution reads x at position * stride + origin + tap * step. The gradient of the input splits
into one such sum over dy for every phase of the stride: output index a + s * i meets the taps r with (a +
pad - r * dilation) % s == 0, which are evenly spaced, and reads dy at i + (a + pad - r * dilation) // s.
"""

import itertools
import math
from typing import NamedTuple


class Axis(NamedTuple):
    """One axis of a sum.

    Position i and tap t read index i * stride + origin + t * step of an array of `size`.
    """

    size: int
    count: int  # positions
    stride: int
    origin: int
    step: int
    taps: int
    tap_first: int  # index in the weight of tap 0
    tap_step: int  # between the weight indices of neighbouring taps; negative in a gradient
    place_first: int  # index in the result of position 0
    place_step: int

    @property
    def upper(self):
        """The im2col corner that makes a walk from `origin` end after `count` positions."""
        return self.origin + (self.count - 1) * self.stride + 1 - self.size


def forward(problem):
    """Axes (D, H, W) of y = conv(x, weight)."""
    rows = zip(problem.size, problem.out, problem.stride, problem.pad_low, problem.dilation, problem.kernel)
    return tuple(Axis(size, out, s, -pad, d, taps, 0, 1, 0, 1) for size, out, s, pad, d, taps in rows)


def backward_input(problem):
    """Axes (D, H, W) for every phase of dx; together they cover dx once. A phase without taps is zero."""
    rows = zip(problem.size, problem.out, problem.stride, problem.pad_low, problem.dilation, problem.kernel)
    return list(itertools.product(*(list(_phases(*row)) for row in rows)))


def _phases(size, out, stride, pad, dilation, taps):
    period = stride // math.gcd(stride, dilation)  # between taps that meet one phase
    step = dilation * period // stride
    for a in range(min(stride, size)):
        count = -(-(size - a) // stride)
        met = [r for r in range(min(period, taps)) if (a + pad - r * dilation) % stride == 0]
        if not met:
            yield Axis(out, count, 1, 0, 1, 0, 0, 1, a, stride)
            continue
        number = (taps - 1 - met[0]) // period + 1
        last = met[0] + (number - 1) * period
        origin = (a + pad - last * dilation) // stride
        yield Axis(out, count, 1, origin, step, number, last, -period, a, stride)
