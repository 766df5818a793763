"""Which backend computes a call: chosen by where its arrays live, and by nothing else.

A backend is a module of the functions that `_reference` defines; `_cpu` and the device's share their
signatures. Mixed devices end here, as DeviceError.
"""

import importlib
import time

from numpy import ndarray

from . import _arguments as arguments
from . import _config
from ._errors import DeviceError
from ._problem import ConvProblem, dtype_word

# fastconv._cpu and the device's backend once they were needed: importing fastconv loads no kernels
_host = _device = None


def of(op, *arrays):
    """The backend module for the arrays of one call (None among them is ignored)."""
    for array in arrays:
        if type(array) is not ndarray and array is not None:
            return _of_others(op, arrays)
    return _host or _load_host()


def _of_others(op, arrays):
    for array in arrays:
        if type(array) not in arguments.DEVICE_TYPES and array is not None:
            return _of_mixed(op, arrays)
    return _device or _load_device(op)


def reference(op, *arrays):
    """In place of `of` in `fastconv.reference`: the naive backend, for host arrays only."""
    _host_only(op, arrays)
    return traced(importlib.import_module("fastconv._reference"))


def _of_mixed(op, arrays):
    on_device = [arguments.on_device(array) for array in arrays if array is not None]
    if not any(on_device):  # subclasses of ndarray
        return _host or _load_host()
    if not all(on_device):
        raise DeviceError(
            f"{op}: {sum(on_device)} of {len(on_device)} arrays live on a GPU, the others on the host"
            " (nothing is copied silently: use fc.cuda.to_device or fc.cuda.to_host)"
        )
    return _load_device(op)


def _host_only(op, arrays):
    if any(arguments.on_device(a) for a in arrays if a is not None and not isinstance(a, ndarray)):
        raise DeviceError(f"{op}: the reference computes on host arrays (copy with fc.cuda.to_host first)")


def _load_device(op):
    global _device
    _device = traced(importlib.import_module("fastconv.cuda").backend(op))
    return _device


def _load_host():
    global _host
    _host = traced(importlib.import_module("fastconv._cpu"))
    return _host


# -- FASTCONV_VERBOSE=1 --------------------------------------------------------------------------------------


def traced(backend):
    """The backend itself, or with FASTCONV_VERBOSE one that reports a line for every function it runs."""
    return _Traced(backend) if _config.VERBOSE else backend


class _Traced:
    """Stands before a backend module and times its functions; exists only when the verbose line is on.

    The compiled backend's convolutions report for themselves, since they know the algorithm they ran.
    """

    SILENT = {
        "fastconv._cpu": (
            "conv_forward",
            "conv_backward_input",
            "conv_backward_weight",
            "conv_backward_weight_bias",
        ),
    }

    # What stands for the instruction set and the threads. On a device the time is that of queueing the work.
    WHERE = {
        "fastconv._reference": {"isa": "numpy", "threads": 1},
        "fastconv.cuda._backend": {"isa": "cuda", "threads": 1},
    }

    def __init__(self, backend):
        self._backend = backend
        self._where = self.WHERE.get(backend.__name__, {})

    def __getattr__(self, name):
        function = getattr(self._backend, name)
        silent = ("algorithms", "plan", *self.SILENT.get(self._backend.__name__, ()))
        if name in silent or not callable(function):
            return function

        def timed(*args):
            label, direction, algorithm, flops = self._describe(name, args)
            start = time.perf_counter()
            result = function(*args)
            seconds = time.perf_counter() - start
            _config.report(label, direction, algorithm, seconds, flops, **self._where)
            return result

        setattr(self, name, timed)
        return timed

    def _describe(self, name, args):
        """(problem, direction, algorithm, flops) of one backend call, from its arguments."""
        problem = next((a for a in args if hasattr(a, "x_shape")), None)
        if isinstance(problem, ConvProblem) and name.startswith("conv_"):
            what = name.removeprefix("conv").removesuffix("_forward").removesuffix("_bias")
            direction = f"conv{problem.ndim}d{what}"
            wanted = args[[a is problem for a in args].index(True) + 1]  # the argument after the problem
            algorithm = self._backend.plan(direction, problem, wanted).algorithm
            return problem.name, name.removeprefix("conv_"), algorithm, problem.flops
        if problem is not None:
            return problem.name, name, "direct", getattr(problem, "flops", 0)
        word = args[0] if isinstance(args[0], str) else name
        array = next(a for a in args if hasattr(a, "shape"))
        shape = "x".join(map(str, array.shape)) or "0d"
        dtype = arguments.native_dtype(arguments.dtype_char(array))
        return f"{word}:{shape}_{dtype_word(dtype)}", name, "direct", 0
