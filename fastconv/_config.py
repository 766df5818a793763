"""Switches: threads, precision, the verbose line, show_config(). All of them are process-wide.

Four environment variables are read once, at import: FASTCONV_NUM_THREADS (then OMP_NUM_THREADS),
FASTCONV_KEEP_MB and FASTCONV_VERBOSE here, FASTCONV_ISA in `_cpu.isa`.
"""

import importlib
import os
import platform
import sys
from contextlib import ContextDecorator

import numpy as np

from . import _arguments as arguments
from ._version import __version__

THREADS_MAX = (
    1024  # an OpenMP runtime that cannot make its threads ends the process, so the number is bounded
)

PRECISIONS = ("strict", "fast", "tf32")


# -- threads -------------------------------------------------------------------------------------------------


def _default_threads(environ):
    """FASTCONV_NUM_THREADS, then OMP_NUM_THREADS (the first of a list), then the usable cores."""
    text = environ.get("FASTCONV_NUM_THREADS", "").strip()
    if text:
        if not text.isdecimal() or not 1 <= int(text[:9]) <= THREADS_MAX or len(text) > 9:
            raise ValueError(f"FASTCONV_NUM_THREADS={text!r}, need an integer between 1 and {THREADS_MAX}")
        return int(text)
    text = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if text.isdecimal() and int(text[:9]) >= 1:  # what OpenMP itself would ignore is ignored here too
        return min(int(text[:9]), THREADS_MAX)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), THREADS_MAX)
    return min(os.cpu_count() or 1, THREADS_MAX)


_threads = _default_threads(os.environ)


def get_num_threads():
    """The number of threads that a call may use; a small problem uses fewer."""
    return _threads


def set_num_threads(n):
    """Use up to `n` threads (1 to 1024) in every call from now on, in the whole process.

    The result of a call does not depend on the number, to the last bit.
    """
    global _threads
    _threads = arguments.integer("set_num_threads", "n", n, 1, THREADS_MAX)


class _Setting(ContextDecorator):
    """``with setting(value):`` sets on entry and restores on exit. Process-wide: other threads see it too."""

    def __init__(self, value):
        self._value = value
        self._before = []  # a stack, so that one object may be entered again inside itself

    def __enter__(self):
        self._before.append(self._get())
        self._set(self._value)
        return self

    def __exit__(self, *exception):
        self._set(self._before.pop())


class num_threads(_Setting):
    """``with fc.num_threads(n):`` uses up to `n` threads inside; process-wide, as `set_num_threads`."""

    _get, _set = staticmethod(get_num_threads), staticmethod(set_num_threads)

    def __init__(self, n):
        super().__init__(arguments.integer("num_threads", "n", n, 1, THREADS_MAX))


# -- precision -----------------------------------------------------------------------------------------------

_precision = "fast"


def get_precision():
    """``"strict"``, ``"fast"`` or ``"tf32"``; see `set_precision`."""
    return _precision


def set_precision(mode):
    """Which algorithms ``"auto"`` may choose from now on, forward and backward, in the whole process.

    ``"strict"``: a direct sum in the array's dtype. ``"fast"`` (default): float32-accurate, which admits
    Winograd and 3xTF32 under their documented bounds. ``"tf32"``: on a device also single-pass TF32. An
    algorithm that is named in a call overrides it.
    """
    global _precision
    _precision = arguments.word("set_precision", "mode", mode, PRECISIONS)


class precision(_Setting):
    """``with fc.precision(mode):`` holds `set_precision`'s mode inside the block; process-wide."""

    _get, _set = staticmethod(get_precision), staticmethod(set_precision)

    def __init__(self, mode):
        super().__init__(arguments.word("precision", "mode", mode, PRECISIONS))


# -- memory --------------------------------------------------------------------------------------------------

KEEP_MB_MOST = 512  # what is kept idle unless FASTCONV_KEEP_MB says otherwise, or 1/8 of the memory if that is less


def _keep_bytes(environ):
    """Bytes of large CPU results that stay with the process after their arrays died, for the results to come.

    FASTCONV_KEEP_MB in MiB; 0 gives every array back to the system at once.
    """
    text = environ.get("FASTCONV_KEEP_MB", "").strip()
    if text:
        if not text.isdecimal() or len(text) > 9:
            raise ValueError(f"FASTCONV_KEEP_MB={text!r}, need a number of MiB, 0 or more")
        return int(text) << 20
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a POSIX system, or one that does not tell
        memory = -1
    return min(KEEP_MB_MOST << 20, memory // 8) if memory > 0 else KEEP_MB_MOST << 20


KEEP_BYTES = _keep_bytes(os.environ)


# -- the verbose line ----------------------------------------------------------------------------------------

VERBOSE = os.environ.get("FASTCONV_VERBOSE", "").strip() not in ("", "0")


def report(op_name, direction, algorithm, seconds, flops, isa=None, threads=None):
    """One line on standard error: problem, direction, algorithm, ISA, threads, ms, GFLOP/s.

    `op_name` is a problem's name, or an operation with the shape it worked on; a flops of 0 leaves the rate
    out; `isa` and `threads` are those of the compiled backend unless given. Callers ask `VERBOSE` first, so
    that nothing is paid when it is off.
    """
    rate = f", {flops / seconds / 1e9:.1f} GFLOP/s" if flops and seconds > 0 else ""
    threads = threads or get_num_threads()
    line = (
        f"fastconv: {op_name}, {direction}, {algorithm}, {isa or active_isa()},"
        f" {threads} thread{'s' * (threads > 1)}, {seconds * 1e3:.3f} ms{rate}\n"
    )
    sys.stderr.write(line)  # one write, so that lines of several threads do not mix


# -- show_config ---------------------------------------------------------------------------------------------


def show_config(mode="stdout"):
    """Print what this installation is and uses; ``mode="dicts"`` returns it as a dictionary instead.

    version, python, numpy, machine; isa_built, isa_usable, isa_active (the kernels in the package, those this
    processor can run, those in use); openmp (whether the kernels use threads); threads; precision; keep_mb
    (most memory that dead results keep for later ones, MiB); gpu (whether a CUDA device is found). Raises ValueError for an unknown mode.
    """
    if arguments.word("show_config", "mode", mode, ("stdout", "dicts")) == "dicts":
        return _facts()
    for key, value in _facts().items():
        if isinstance(value, (tuple, list)):
            value = ", ".join(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        print(f"{key:<12}{'-' if value is None else value}")
    return None


def _isa():
    """`fastconv._cpu.isa`, imported only when asked for, since it stands above; None if not built."""
    try:
        return importlib.import_module("fastconv._cpu.isa")
    except ImportError:
        return None


def active_isa():
    """Name of the instruction-set level in use, or None."""
    isa = _isa()
    return None if isa is None else isa.active().__name__.rpartition("_kernels_")[2]


def _facts():
    isa = _isa()
    cuda = importlib.import_module("fastconv.cuda")
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "isa_built": () if isa is None else isa.built(),
        "isa_usable": () if isa is None else isa.levels(),
        "isa_active": active_isa(),
        "openmp": isa is not None and isa.threading(),
        "threads": get_num_threads(),
        "precision": get_precision(),
        "keep_mb": KEEP_BYTES >> 20,
        "gpu": cuda.is_available(),
    }
