"""The benchmark's peer on the device in numba's simulator: every kind of problem, and a step of training.

Run by `test_cuda_simulator` like `cuda_simulated.py`.
"""

import numpy as np
import pytest
from bench_samples import CONVOLUTIONS, OTHERS

import fastconv as fc
from fastconv import nn
from fastconv.bench import expected, networks, on_device, peers, problems, worker

PEER = peers.get("fastconv_cuda")
PEER.setup(1)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("name", CONVOLUTIONS + OTHERS)
def test_it_computes_what_the_judge_expects(name):
    problem = problems.parse(name)
    there = {key: PEER.upload(array) for key, array in problem.arrays().items()}
    for direction in problem.directions:
        call = PEER.prepare(problem, direction, there)
        with PEER.many():
            call()
            found = PEER.download(call())  # the second call has not been spoilt by the first
        assert all(isinstance(f, np.ndarray) for f in found)
        verdict = worker.judge(found, expected.expected(problem, direction), problem, direction)
        assert "wrong" not in verdict, f"{direction}: {verdict['wrong']}"


class Small(networks.Network):
    """A network that a simulator ends."""

    def __init__(self, dtype=np.float32):
        problems.Problem.__init__(self, "small:n2_f32", "small", dtype)
        self.N, self.x_shape = 2, (2, 1, 6, 6)
        self.layers = [problems.parse("conv2d:n2c1h6w6k2r3s3_st1p0d1g1_f32")]
        self.layers.append(problems.parse("linear:2x8x10_f32"))

    def model(self, dtype=None):
        made = dict(dtype=self.dtype, rng=np.random.default_rng(0))
        layers = (
            nn.Conv2d(1, 2, 3, bias=False, **made),
            nn.BatchNorm2d(2, dtype=self.dtype),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, networks.CLASSES, **made))
        return networks._cast(model, self.dtype if dtype is None else dtype)


@pytest.mark.parametrize("direction", ["forward", "step"])
def test_a_network(direction, monkeypatch, tmp_path):
    problem = Small()
    monkeypatch.setattr(problems, "parse", lambda name: problem)
    monkeypatch.setattr(networks, "Network", lambda op, N, dtype: Small(dtype))
    wanted = networks.expected(problem, direction)
    np.savez(tmp_path / "expected.npz", *wanted)
    there = {key: PEER.upload(array) for key, array in problem.arrays().items()}
    result = PEER.prepare(problem, direction, there)()
    found = result if isinstance(result, tuple) else (result,)
    assert all(
        hasattr(array, "__cuda_array_interface__") or not isinstance(array, np.ndarray) for array in found
    )
    answer = on_device.measure(PEER, problem.name, direction, str(tmp_path / "expected.npz"), 0.0)
    assert "wrong" not in answer and answer["ulp_size"] >= 0
    assert 0 < answer["best"] and 0 < answer["transfers_best"]
    assert answer["out_bytes"] == (2 * networks.CLASSES * 4 if direction == "forward" else 4)
    assert on_device.measure(PEER, problem.name, direction, None, None).keys() == {"first"}


def test_wrong_results_are_not_timed(tmp_path):
    problem = problems.parse("relu:3x5_f32")
    np.savez(tmp_path / "expected.npz", np.ones((3, 5)))
    answer = on_device.measure(PEER, problem.name, "forward", str(tmp_path / "expected.npz"), 0.0)
    assert "wrong" in answer and "best" not in answer


def test_the_device_is_described():
    found = on_device.describe(PEER, 0.0)
    assert found["simulator"] and found["call_seconds"] > 0 and found["pinned_to_host_gbytes"] > 0
    assert fc.get_precision() == "fast"
