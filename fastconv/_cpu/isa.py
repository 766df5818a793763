"""Instruction-set levels: which kernel modules were built, which this processor runs, which one is in force.

``FASTCONV_ISA`` caps the level (``baseline``, ``avx2``, ``avx512``). Every level can be used in one process, which is how the tests reach them all.
Forking is made safe here: idle OpenMP threads are handed back before a fork, since a child that inherits the runtime without its threads would wait
for them forever. ``FASTCONV_NO_FORK_HANDLER=1`` leaves that out.
"""

import importlib
import importlib.util
import os
from contextlib import contextmanager


# Idle OpenMP threads spin for milliseconds before they sleep, which on a busy machine takes the time of whoever would work. The GNU runtime reads how long from the
# environment when it is loaded, which is now; the user's own setting wins. 5,000 turns are about 50 us: the gap between two calls from Python.
_SPIN = "GOMP_SPINCOUNT"
_ours = not any(name in os.environ for name in (_SPIN, "OMP_WAIT_POLICY"))
if _ours:
    os.environ[_SPIN] = "5000"
try:
    from .. import _kernels_baseline
finally:
    if _ours:
        del os.environ[_SPIN]

ORDER = ("baseline", "avx2", "avx512")  # slowest first

_modules = {"baseline": _kernels_baseline}
_active = None


def built():
    """Levels whose kernels are in the package, slowest first."""
    package = __name__.split(".")[0]
    return tuple(name for name in ORDER if importlib.util.find_spec(f"{package}._kernels_{name}"))


def levels():
    """Levels that are built and that this processor can run, slowest first."""
    usable = _kernels_baseline.cpu_levels()
    return tuple(name for name in built() if name in usable)


def load(name):
    """The kernel module of a level; ValueError if it is unknown, not built or not for this processor."""
    if name not in _modules:
        if name not in levels():
            raise ValueError(f"ISA level {name!r}: need one of {', '.join(levels())} (built, and run by this processor)")
        _modules[name] = importlib.import_module(f".._kernels_{name}", __package__)
    return _modules[name]


def active():
    """The kernel module in force."""
    return _active


def memory():
    """The one kernel module whose arena all results come from, whatever level computes them."""
    return _kernels_baseline


def threading():
    """Whether the kernels were built with OpenMP."""
    return bool(_kernels_baseline.build_info()["openmp"])


@contextmanager
def use(name):
    """``with use("avx2"):`` computes with that level inside the block, in the whole process (for tests and benchmarks)."""
    global _active
    before, _active = _active, load(name)
    try:
        yield _active
    finally:
        _active = before


def _best(cap):
    usable = levels()
    if cap:
        if cap not in ORDER:
            raise ValueError(f"FASTCONV_ISA={cap!r}, need one of {', '.join(ORDER)}")
        usable = [name for name in usable if ORDER.index(name) <= ORDER.index(cap)]
    return usable[-1]


_active = load(_best(os.environ.get("FASTCONV_ISA", "").strip()))

if hasattr(os, "register_at_fork") and os.environ.get("FASTCONV_NO_FORK_HANDLER", "") in ("", "0"):
    os.register_at_fork(before=_kernels_baseline.pause_threads)
