"""Public convolutions through the rows of fast kernels: arrays of numba's simulator, kernels in the emulator.

Run by `test_cuda_rows.py` in a process whose numba has no device but its simulator.
"""

import ctypes

import numpy as np
import pytest
from emulator import Device
from test_cuda_kernels import run

import fastconv as fc
from fastconv import testing
from fastconv.cuda import fast, select
from fastconv.testing import bounds


class Machine:
    """Stands for `_driver.Runner`.

    Takes every kernel, runs programs in the emulator on the caller's memory.
    """

    ran, arch = [], 90

    def handle(self, kernel):
        return kernel

    def prepare(self, program):
        return Prepared(program)


class Prepared:
    sizes = {}  # bytes of the caller's buffers, by name: addresses alone do not tell

    def __init__(self, program):
        self.program = program

    def __call__(self, addresses, stream):
        device, there = Device(), {}
        memory = {n: (ctypes.c_uint8 * self.sizes[n]).from_address(addresses[n]) for n in self.sizes}
        for name, host in memory.items():
            there[name] = device.put(np.frombuffer(host, np.uint8))
        scratch = dict(self.program.scratch)
        spans = sorted((addresses[n], addresses[n] + scratch[n]) for n in scratch)
        assert all(start % 256 == 0 for start, _ in spans)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))  # buffers do not overlap
        run(device, self.program, there)
        for name, host in memory.items():
            np.frombuffer(host, np.uint8)[:] = device.get(there[name], (self.sizes[name],), np.uint8)
        Machine.ran.append([step.kernel.name for step in self.program.steps])


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(fast, "runner", lambda device: made)
    monkeypatch.setattr(fast, "_current", lambda: (made, select.Device(90)))
    Machine.ran.clear()
    from fastconv.cuda._backend.algorithms import TABLES

    TABLES._choose.cache_clear()
    yield made
    TABLES._choose.cache_clear()
    fast._prepared.cache_clear()
    fast._ready.cache_clear()


rng = np.random.default_rng(0)
X = rng.integers(-3, 4, (2, 6, 7, 8)).astype(np.float32)
W = rng.integers(-3, 4, (5, 6, 3, 2)).astype(np.float32)
B = rng.integers(-3, 4, 5).astype(np.float32)
OPTIONS = dict(stride=(2, 1), padding=1)
Y = fc.conv2d(X, W, B, **OPTIONS)


def sizes(monkeypatch, **arrays):
    monkeypatch.setattr(Prepared, "sizes", {name: a.nbytes for name, a in arrays.items()})


@pytest.mark.parametrize(
    "precision, kernel", [("strict", "gemm_f32"), ("fast", "igemm_sm90_f32"), ("tf32", "igemm_sm90_tf32")]
)
def test_forward(precision, kernel, monkeypatch):
    sizes(monkeypatch, x=X, weight=W, bias=B, y=Y)
    with fc.precision(precision):
        y = fc.cuda.conv2d(*map(fc.cuda.to_device, (X, W, B)), **OPTIONS)
    assert (fc.cuda.to_host(y) == Y).all()
    (names,) = Machine.ran
    assert names[-1].startswith(kernel)


@pytest.mark.parametrize("algorithm", ["mma_3xtf32", "mma_tf32", "wgmma_tf32", "ffma"])
def test_named(algorithm, monkeypatch):
    y = Y - B[:, None, None]
    sizes(monkeypatch, x=X, weight=W, y=y)
    found = fc.cuda.conv2d(*map(fc.cuda.to_device, (X, W)), algorithm=algorithm, **OPTIONS)
    assert (fc.cuda.to_host(found) == y).all() and len(Machine.ran) == 1


def test_backward(monkeypatch):
    dy = rng.integers(-3, 4, Y.shape).astype(np.float32)
    expected = fc.conv2d_backward(dy, X, W, **OPTIONS)
    arrays = list(map(fc.cuda.to_device, (dy, X, W)))
    sizes(monkeypatch, dy=dy, weight=W, dx=X)
    dx, _, _ = fc.cuda.conv2d_backward(*arrays, **OPTIONS, output_mask=(True, False, False))
    sizes(monkeypatch, dy=dy, x=X, dweight=W)
    _, dweight, _ = fc.cuda.conv2d_backward(*arrays, **OPTIONS, output_mask=(False, True, False))
    assert (fc.cuda.to_host(dx) == expected[0]).all() and (fc.cuda.to_host(dweight) == expected[1]).all()
    assert Machine.ran[0][-1].startswith("igemm_sm90_f32") and any(
        "weight_gradient" in n for n in Machine.ran[1]
    )


def test_transposed_adds_its_bias(monkeypatch):
    weight = np.ascontiguousarray(W.transpose(1, 0, 2, 3))
    expected = fc.conv_transpose2d(X, weight, B, stride=2)
    sizes(monkeypatch, dy=X, weight=weight, bias=B, dx=expected)
    found = fc.cuda.conv_transpose2d(*map(fc.cuda.to_device, (X, weight, B)), stride=2)
    assert (fc.cuda.to_host(found) == expected).all() and len(Machine.ran) == 1


def test_plan_tells_why():
    plan = fc.cuda.plan("conv2d", X, W)
    assert plan.algorithm == "wgmma_3xtf32" and plan.scratch_bytes > 0
    assert plan.refused["wgmma_tf32"] == "is single-pass TF32: needs set_precision('tf32'), got 'fast'"
    double = fc.cuda.plan("conv2d", X.astype(np.float64), W.astype(np.float64))
    assert double.algorithm == "simple" and double.refused["ffma"] == "needs f32 arrays, got float64"
    with pytest.raises(fc.UnsupportedError, match="algorithm 'wgmma_tf32' needs f32 arrays, got float64"):
        fc.cuda.plan("conv2d", X.astype(np.float64), W.astype(np.float64), algorithm="wgmma_tf32")


def test_kernels_that_cannot_be_built_are_refused(machine, monkeypatch):
    def broken(kernel):
        raise OSError("nvjitlink is missing")

    monkeypatch.setattr(machine, "handle", broken)
    plan = fc.cuda.plan("conv2d", X, W)
    assert plan.algorithm == "simple"
    assert plan.refused["wgmma_3xtf32"] == "could not be built: OSError: nvjitlink is missing"


def test_an_empty_batch_is_left_to_simple_kernels():
    empty = fc.cuda.to_device(X[:0])
    assert fc.cuda.plan("conv2d", empty, W).algorithm == "simple"


def test_depthwise(monkeypatch):
    w = W[:, :1]
    x = X[:, :5]
    y = fc.reference.conv2d(x, w, B, groups=5, activation="relu")
    sizes(monkeypatch, x=x, weight=w, bias=B, y=y)
    found = fc.cuda.conv2d(*map(fc.cuda.to_device, (x, w, B)), groups=5, activation="relu")
    assert (fc.cuda.to_host(found) == y).all() and Machine.ran[0][0].startswith("depthwise_3x2")


def test_memory_bound(monkeypatch):
    x = fc.cuda.to_device(X)
    sizes(monkeypatch, x=X, out=X)
    assert (fc.cuda.to_host(fc.cuda.relu(x)) == fc.relu(X)).all()
    sizes(monkeypatch, dy=X, y=X, out=X)
    assert (fc.cuda.to_host(fc.cuda.relu_backward(x, x)) == fc.relu_backward(X, X)).all()
    y, at = fc.max_pool2d(X, 2, return_indices=True)
    sizes(monkeypatch, x=X, y=y, indices=at)
    found = fc.cuda.max_pool2d(x, 2, return_indices=True)
    assert all((fc.cuda.to_host(a) == b).all() for a, b in zip(found, (y, at)))
    assert [names[0].split("_")[0] for names in Machine.ran] == ["relu", "relu", "max"]


def test_softmax_and_cross_entropy(monkeypatch):
    rows = X.reshape(-1, 8)
    sizes(monkeypatch, x=rows, y=rows)
    y = fc.cuda.to_host(fc.cuda.softmax(fc.cuda.to_device(rows)))
    limit = bounds.softmax(rows.astype(np.float64), 1, False, np.float32)
    testing.compare(y, fc.reference.softmax(rows.astype(np.float64)), limit)
    target = np.arange(len(rows)) % 8
    target[3] = -100
    scores, labels = fc.cuda.to_device(rows), fc.cuda.to_device(target)
    losses = np.empty(len(rows), np.float32)
    sizes(monkeypatch, x=rows, target=target, count=losses[:1], losses=losses, dx=rows)
    loss, dx = map(fc.cuda.to_host, fc.cuda.softmax_cross_entropy(scores, labels))
    expected = fc.reference.softmax_cross_entropy(rows.astype(np.float64), target)
    hot = np.eye(8)[target % 8] * (target >= 0)[:, None]
    limits = bounds.cross_entropy(rows.astype(np.float64), hot, "mean", len(rows) - 1, np.float32)
    testing.compare(loss, expected[0], limits[0])
    testing.compare(dx, expected[1], limits[1])
    assert [names[0].rpartition("_")[0] for names in Machine.ran] == ["softmax", "cross_entropy"]
