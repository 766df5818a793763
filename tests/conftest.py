"""What holds for every test: the package under test is the installed one, also in child processes.

Also: poisoned memory for the kernels, and the count of conformance cases at the end of a run.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


# A shell that starts a run in the background has Ctrl-C ignored, also in the children; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _built_in_place():
    return any(path.suffix in (".so", ".pyd") for path in (CHECKOUT / "fastconv").glob("_kernels_*"))


# `python -m pytest` puts the checkout in front of the installed package, and its fastconv/ has no compiled kernels
# (unless they were built in place, which is how one develops).
if not _built_in_place():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory):
    """Run in an empty folder, so that `python -c` in a child process finds the same fastconv as this process."""
    import fastconv

    before = Path.cwd(), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(fastconv.__file__).parents[1]), before[1]])
    )
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before[0])
    if before[1] is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before[1]


@pytest.fixture
def one_thread():
    """Kernels run in one thread unless the test says otherwise: its problems are small."""
    import fastconv as fc

    with fc.num_threads(1):
        yield


# -- what kernels get in tests: poison --------------------------------------------------------------------


@pytest.fixture
def poison(monkeypatch):
    """Results and scratch of the compiled kernels start as NaN; a write beyond a result's end is fatal."""
    from fastconv._cpu import arrays, isa
    from fastconv.testing import guarded_empty

    def guarded_like(array, shape=None):
        return guarded_empty(array.shape if shape is None else shape, array.dtype.newbyteorder("="))

    replaced = {"empty": (arrays.empty, guarded_empty), "like": (arrays.like, guarded_like)}
    for name, module in list(sys.modules.items()):
        for function, (original, guarded) in replaced.items():
            if name.startswith("fastconv._cpu.") and getattr(module, function, None) is original:
                monkeypatch.setattr(module, function, guarded)
    levels = [isa.load(name) for name in isa.levels()]
    for kernels in levels:
        kernels.poison_memory(True)
    yield
    assert not any([kernels.poison_memory(False) for kernels in levels]), "something was written behind the end of scratch or of a result"


# -- how much was compared --------------------------------------------------------------------------------

_conformance = Counter()


@pytest.fixture
def tally():
    """tally[what] += 1 for every case compared with the reference; summed up at the end of the run."""
    return _conformance


def pytest_terminal_summary(terminalreporter):
    if _conformance:
        parts = ", ".join(f"{count} {what}" for what, count in sorted(_conformance.items()))
        terminalreporter.write_line(f"conformance: {sum(_conformance.values())} cases ({parts})")
