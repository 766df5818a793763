"""Runs `cuda_fast_rows.py` in a process whose numba has no device but its simulator."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba, whose simulator this needs, is absent"
)
def test_public_calls_reach_the_fast_kernels():
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(HERE.parent), "-W", "ignore"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "cuda_fast_rows.py")],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2_000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
