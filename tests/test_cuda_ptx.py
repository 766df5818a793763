"""Every simple kernel compiles for real devices; on float32 and on 16 bits it computes in float32 alone."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ptx_simple.py")

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is absent")


@pytest.mark.parametrize(
    "capability, dtypes", [("90", ["float32", "float64"]), ("80", ["float32", "float16", "bfloat16"])]
)
def test_simple_kernels_compile(capability, dtypes):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), capability, *dtypes],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    *kernels, last = map(json.loads, run.stdout.splitlines())
    if "missing" in last:
        pytest.skip(f"the compiler of numba.cuda is incomplete: {last['missing']}")
    assert kernels.pop() == {"cubin": True}
    long = [dtype for dtype in dtypes if dtype in ("float32", "float64")]
    assert last == {"not launched": []} and len(kernels) >= 48 * len(long)
    for kernel in kernels:
        assert kernel["entry"] == 1 and kernel["target"] and kernel["parameters"], kernel
        assert not kernel["local"], f"{kernel['name']} keeps numbers in local memory"
        if not kernel["double"]:  # int64 and float32 make float64, wherever a cast was forgotten
            assert kernel["f64"] == 0, f"{kernel['name']} computes in float64"
        assert kernel["short arithmetic"] == 0, f"{kernel['name']} computes in 16 bits"
    if "float16" in dtypes:  # activations, losses, norms, pools, sums take arrays of 16 bits as they are
        assert len({kernel["name"] for kernel in kernels if kernel["half"]}) >= 31
    assert {kernel["double"] for kernel in kernels} == {dtype == "float64" for dtype in dtypes}
