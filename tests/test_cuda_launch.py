"""The launch path on the host, with a driver that is none: what calls ask of it, and what they cost."""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import dummy_driver
import pytest

HERE = Path(__file__).parent
# Seconds of the host for a small operation, besides the allocation of its results. Arrays of others cost what
# reading them does; these stand-ins are in Python, with five of them in a batch norm 35 us.
MOST = {"own": 10e-6, "torch": 40e-6, "cupy": 40e-6, "described": 40e-6}
SLACK = 5  # a shared or slow machine

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is absent"),
    pytest.mark.skipif(dummy_driver.missing() is not None, reason=str(dummy_driver.missing())),
]


@functools.lru_cache(maxsize=None)
def found(kind):
    """What `dummy_calls.py` says of arrays of a kind: name -> facts."""
    run = subprocess.run(
        [sys.executable, str(HERE / "dummy_calls.py"), kind], capture_output=True, text=True, cwd=HERE.parent
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("kind", ["own", "torch", "cupy", "described"])
def test_a_warm_call_is_launches_and_memory_in_stream_order(kind):
    facts = found(kind)
    assert len(facts) > 50
    for name, of in facts.items():
        allowed = {"launch", "alloc", "free"} | ({"pointer"} if kind == "described" else set())
        assert set(of["calls"]) <= allowed and "launch" in of["calls"], (name, of["calls"])
        assert of["left"] == 0, f"{name} keeps memory"
        assert set(of["streams"]) == {of["stream"]}, f"{name} works on other streams"


def test_results_and_scratch_are_allocated_and_no_more():
    facts = found("own")
    assert facts["relu"]["calls"] == ["alloc", "launch"]
    assert facts["max_pool2d, indices"]["calls"] == ["alloc", "alloc", "launch"]
    assert facts["conv2d"]["calls"] == ["alloc", "alloc", "launch", "launch", "launch", "free"]
    for name, of in facts.items():  # all that lives for the time of a call is one allocation of it
        assert of["calls"].count("alloc") <= of["results"] + of["backend calls"], name


def test_only_checks_that_are_not_deferred_wait():
    for name, of in found("own").items():
        waits = {"download", "wait"} & set(of["at once"])
        checked = name in ("nll", "hinge", "softmax_cross_entropy", "maxout_backward") or name.endswith(
            "max_pool2d_backward"
        )
        assert bool(waits) == checked, (name, of["at once"])


@pytest.mark.parametrize("kind", ["own", "torch", "cupy", "described"])
def test_warm_calls_are_quick(kind):
    took = {name: of["seconds"] for name, of in found(kind).items() if "seconds" in of}
    slow = {name: seconds for name, seconds in took.items() if seconds > SLACK * MOST[kind]}
    assert not slow
