"""Comparing results with numbers worked out by hand, and those that several files use."""

import numpy as np

from fastconv import testing


SQUARED_ERROR_TABLE = [  # of the lecture notes: weight, bias, loss
    (0.50, 0.00, 0.0731),
    (-0.10, 0.00, 0.1481),
    (0.94, -0.94, 0.0217),
    (1.42, -1.73, 0.0029),
    (1.65, -2.08, 0.0003),
    (1.78, -2.27, 0.0000),
]


def grid(*rows):
    """A float64 image (1, 1, H, W)."""
    return np.array([[rows]], np.float64)


def exactly(actual, expected):
    testing.compare(actual, np.asarray(expected, np.float64))


def printed(actual, expected, decimals):
    """Equal to what is printed with so many decimals."""
    testing.compare(actual, np.asarray(expected, np.float64), 0.5000001 * 10.0**-decimals)


def near(actual, expected, steps=16):
    """Equal up to so many float64 roundings of the largest value."""
    expected = np.asarray(expected, np.float64)
    largest = np.abs(expected).max(initial=0.0)
    testing.compare(actual, expected, testing.bound(largest, steps, np.float64, adversarial=True))
