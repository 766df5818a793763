"""Runs the `cuda_simulated*.py` files in a process whose numba has no device but its simulator."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba, whose simulator this needs, is absent"
)


def simulated(name):
    """What pytest says about a file there."""
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(HERE.parent), "-W", "ignore::RuntimeWarning"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / name)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2_000:]
    assert " skipped" not in run.stdout
    return run.stdout


def test_kernels(tally):
    count = re.search(r"conformance: (\d+) cases \(\1 simulator\)", simulated("cuda_simulated.py"))
    assert count and int(count[1]) > 400
    tally["simulator"] += int(count[1])


def test_halves(tally):
    count = re.search(r"conformance: (\d+) cases \(\1 simulator\)", simulated("cuda_simulated_half.py"))
    assert count and int(count[1]) > 400
    tally["simulator"] += int(count[1])


def test_host():
    assert int(re.search(r"(\d+) passed", simulated("cuda_simulated_host.py"))[1]) > 40


def test_bench():
    assert int(re.search(r"(\d+) passed", simulated("cuda_simulated_bench.py"))[1]) > 30
