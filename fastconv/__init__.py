"""fastconv: compiled kernels and layers for convolutional networks on plain NumPy arrays.

    import fastconv as fc
    y = fc.conv2d(x, weight, bias, padding=1)

Re-exports of the public names; nothing else. Namespaces (fc.nn, fc.io, ...) load when first asked for.
"""

import importlib

from ._config import (
    get_num_threads,
    get_precision,
    num_threads,
    precision,
    set_num_threads,
    set_precision,
    show_config,
)
from ._errors import DeviceError, UnsupportedError
from ._gradient import check_gradient
from ._version import __version__
from .functional import *
from .functional import __all__ as _operations

_NAMESPACES = ("bench", "cuda", "data", "io", "models", "nn", "optim", "reference", "testing", "train")

__all__ = [
    *_operations,
    "DeviceError",
    "UnsupportedError",
    "check_gradient",
    "get_num_threads",
    "get_precision",
    "num_threads",
    "precision",
    "set_num_threads",
    "set_precision",
    "show_config",
    "__version__",
]


def __getattr__(name):
    if name in _NAMESPACES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_NAMESPACES})
