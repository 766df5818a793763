"""Runs `cuda_simulated.py` in a process whose numba has no device but its simulator."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba, whose simulator this needs, is absent")
def test_in_the_simulator(tally):
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(HERE.parent), "-W", "ignore::RuntimeWarning"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "cuda_simulated.py")],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2_000:]
    count = re.search(r"conformance: (\d+) cases \(\1 simulator\)", run.stdout)
    assert count and int(count[1]) > 400
    tally["simulator"] += int(count[1])
