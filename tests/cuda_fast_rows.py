"""Public convolutions through the rows of fast kernels: arrays of numba's simulator, kernels in the emulator.

Run by `test_cuda_rows.py` in a process whose numba has no device but its simulator.
"""

import ctypes
from functools import partial

import numpy as np
import pytest
from cuda_device import strided
from cuda_simulated_half import HALVES, fetched, sent, shortened, tensors  # noqa: F401  tensors is a fixture
from cuda_simulated_host import torch  # noqa: F401  a fixture that the other one uses
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

    ran, arch, attributes = [], 90, {"multiprocessors": 3}  # few, so that blocks walk over several tiles

    def handle(self, kernel):
        return kernel

    def prepare(self, program):
        return Prepared(program)


class Prepared:
    sizes = {}  # bytes of buffers by name, which addresses do not tell; the caller may have fewer

    def __init__(self, program):
        self.program = program

    def __call__(self, addresses, stream):
        device, there = Device(), {}
        sizes = {n: nbytes for n, nbytes in self.sizes.items() if n in addresses}
        memory = {n: (ctypes.c_uint8 * sizes[n]).from_address(addresses[n]) for n in sizes}
        for name, host in memory.items():
            there[name] = device.put(np.frombuffer(host, np.uint8))
        scratch = dict(self.program.scratch)
        spans = sorted((addresses[n], addresses[n] + scratch[n]) for n in scratch)
        assert all(start % 256 == 0 for start, _ in spans)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))  # buffers do not overlap
        run(device, self.program, there)
        for name, host in memory.items():
            np.frombuffer(host, np.uint8)[:] = device.get(there[name], (sizes[name],), np.uint8)
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
    fast._product.cache_clear()


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
        n.startswith("wgrad_sm80_f32") for n in Machine.ran[1]
    )


@pytest.mark.parametrize(
    "precision, kernel",
    [("strict", "gemm_f32_weight_gradient"), ("fast", "wgrad_sm80_f32"), ("tf32", "wgrad_sm80_tf32")],
)
@pytest.mark.parametrize("options", [OPTIONS, dict(groups=2, dilation=(1, 2))])
def test_weight_gradient(precision, kernel, options, monkeypatch):
    w = np.ascontiguousarray(W[:4, : 6 // options.get("groups", 1)])
    dy = rng.integers(-3, 4, fc.conv2d(X, w, **options).shape).astype(np.float32)
    mask = (False, True, False)
    _, expected, _ = fc.conv2d_backward(dy, X, w, **options, output_mask=mask)
    sizes(monkeypatch, dy=dy, x=X, dweight=w)
    with fc.precision(precision):
        found = fc.cuda.conv2d_backward(*map(fc.cuda.to_device, (dy, X, w)), **options, output_mask=mask)
    assert (fc.cuda.to_host(found[1]) == expected).all()
    (names,) = Machine.ran
    assert kernel in names


def test_transposed_adds_its_bias(monkeypatch):
    weight = np.ascontiguousarray(W.transpose(1, 0, 2, 3))
    expected = fc.conv_transpose2d(X, weight, B, stride=2)
    sizes(monkeypatch, dy=X, weight=weight, bias=B, dx=expected)
    found = fc.cuda.conv_transpose2d(*map(fc.cuda.to_device, (X, weight, B)), stride=2)
    assert (fc.cuda.to_host(found) == expected).all() and len(Machine.ran) == 1


# -- 16 bits -------------------------------------------------------------------------------------------------


def real(shape, dtype):
    return shortened(rng.standard_normal(shape).astype(np.float32), dtype)


def short(monkeypatch, **arrays):
    """Sizes of buffers, of 16-bit elements."""
    monkeypatch.setattr(Prepared, "sizes", {name: 2 * np.size(a) for name, a in arrays.items()})


def wide(*arrays):
    return [a.astype(np.float64) for a in arrays]


HALF_KERNELS = [(a, d) for a in ("auto", "wgmma", "mma") for d in HALVES]
WORD = {"float16": "f16", "bfloat16": "bf16"}


@pytest.mark.parametrize("algorithm, dtype", HALF_KERNELS)
@pytest.mark.parametrize("options", [dict(stride=(2, 1), padding=1), dict(groups=2, dilation=(1, 2))])
def test_half_forward(algorithm, dtype, options, monkeypatch):
    groups = options.get("groups", 1)
    x, w, b = real((2, 6, 7, 8), dtype), real((4, 6 // groups, 3, 2), dtype), real((4,), dtype)
    y = fc.reference.conv2d(*wide(x, w, b), **options)
    magnitude = fc.reference.conv2d(*map(np.abs, wide(x, w, b)), **options)
    for activation in (None, "relu", "sigmoid"):
        expected = fc.reference.conv2d(*wide(x, w, b), **options, activation=activation)
        limit = bounds.bound(magnitude, w[0].size + 1, dtype)
        if activation == "sigmoid":
            limit = limit + bounds.unit(dtype) * expected
        short(monkeypatch, x=x, weight=w, bias=b, y=y)
        arrays = [sent(a, dtype) for a in (x, w, b)]
        found = fc.cuda.conv2d(*arrays, **options, activation=activation, algorithm=algorithm)
        testing.compare(fetched(found), expected, limit)
    engine = "igemm_sm80" if algorithm == "mma" else "igemm_sm90"
    assert len(Machine.ran) == 3 and all(n[-1].startswith(f"{engine}_{WORD[dtype]}") for n in Machine.ran)


@pytest.mark.parametrize("algorithm, sm", [("auto", 90), ("mma", 80)])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rank, options", [(1, {}), (2, dict(stride=2, padding=1)), (3, dict(padding=1))])
def test_half_gradients(rank, options, dtype, algorithm, sm, monkeypatch):
    x, w = real((2, 5, *(6, 7, 8)[-rank:]), dtype), real((3, 5, *(2, 3, 2)[-rank:]), dtype)
    forward, backward = (getattr(fc.reference, f"conv{rank}d{part}") for part in ("", "_backward"))
    dy = real(forward(*wide(x, w), **options).shape, dtype)
    expected = backward(*wide(dy, x, w), **options)
    magnitude = backward(*map(np.abs, wide(dy, x, w)), **options)
    arrays = [sent(a, dtype) for a in (dy, x, w)]
    call = partial(getattr(fc.cuda, f"conv{rank}d_backward"), algorithm=algorithm)
    short(monkeypatch, dy=dy, weight=w, dx=x)
    dx, _, _ = call(*arrays, **options, output_mask=(True, False, False))
    short(monkeypatch, dy=dy, x=x, dweight=w)
    _, dweight, _ = call(*arrays, **options, output_mask=(False, True, False))
    short(monkeypatch, x=dy, y=w[:, 0, ..., 0].ravel()[:3])
    _, _, dbias = call(*arrays, **options, output_mask=(False, False, True))
    lengths = w[:, 0].size, dy[:, 0].size, dy[:, 0].size
    for found, right, size, length in zip((dx, dweight, dbias), expected, magnitude, lengths):
        testing.compare(fetched(found), right, bounds.bound(size, length, dtype))
    assert len(Machine.ran) == 3 and Machine.ran[2][0].startswith("channels_sum")
    assert Machine.ran[0][-1].startswith(f"igemm_sm{sm}_{WORD[dtype]}")
    assert any(name.startswith(f"wgrad_sm{sm}_{WORD[dtype]}") for name in Machine.ran[1])


@pytest.mark.parametrize("dtype", HALVES)
def test_half_transposed(dtype, monkeypatch):
    x, w, b = real((2, 6, 7, 8), dtype), real((6, 5, 3, 2), dtype), real((5,), dtype)
    expected = fc.reference.conv_transpose2d(*wide(x, w, b), stride=2)
    magnitude = fc.reference.conv_transpose2d(*map(np.abs, wide(x, w, b)), stride=2)
    short(monkeypatch, dy=x, weight=w, bias=b, dx=expected)
    found = fc.cuda.conv_transpose2d(*(sent(a, dtype) for a in (x, w, b)), stride=2)
    testing.compare(fetched(found), expected, bounds.bound(magnitude, w[:, 0].size + 1, dtype))
    assert len(Machine.ran) == 1


@pytest.mark.parametrize("dtype", HALVES)
def test_half_images_in_channels_last_are_read_as_they_lie(dtype, monkeypatch):
    x = np.ascontiguousarray(real((2, 40, 7, 8), dtype).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    w = real((4, 40, 3, 2), dtype)
    y, magnitude = fc.reference.conv2d(*wide(x, w)), fc.reference.conv2d(*map(np.abs, wide(x, w)))
    short(monkeypatch, x=x, weight=w, y=y)
    found = fc.cuda.conv2d(sent(x, dtype), sent(w, dtype))
    testing.compare(fetched(found), y, bounds.bound(magnitude, w[0].size, dtype))
    assert not any(name.startswith(("channels_last", "gather")) for name in Machine.ran[0])


@pytest.mark.parametrize("dtype", HALVES)
def test_half_choice(dtype):
    x, w = (sent(a, dtype) for a in (X, W))
    for precision in ("strict", "fast", "tf32"):
        with fc.precision(precision):
            plan = fc.cuda.plan("conv2d", x, w)
            assert plan.algorithm == "wgmma" and plan.scratch_bytes > 0 and "simple" not in plan.refused
            assert fc.cuda.plan("conv2d_backward_weight", x, w).algorithm == "wgmma"
    with pytest.raises(fc.UnsupportedError, match=f"'wgmma_3xtf32' needs f32 arrays, got {WORD[dtype]}"):
        fc.cuda.conv2d(x, w, algorithm="wgmma_3xtf32")
    with pytest.raises(fc.UnsupportedError, match=f"'depthwise' needs float32 arrays, got {dtype}"):
        fc.cuda.conv2d(x, w, algorithm="depthwise")
    single = fc.cuda.plan("conv2d", X, W)
    assert single.refused["wgmma"] == "needs f16 or bf16 arrays, got f32"
    reflected = fc.cuda.plan("conv2d", x, w, padding=1, padding_mode="reflect")
    assert reflected.algorithm == "simple" and "padding_mode='zeros'" in reflected.refused["wgmma"]


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


@pytest.mark.parametrize("dtype", [None, *HALVES])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_depthwise_weight_gradient(dtype, layout, monkeypatch):
    options = dict(groups=6, stride=(2, 1), padding=1)
    x, w = rng.integers(-1, 2, (2, 6, 9, 8)).astype(np.float32), np.zeros((6, 1, 3, 3), np.float32)
    dy = rng.integers(-1, 2, (2, 6, 5, 8)).astype(np.float32)
    _, expected, _ = fc.reference.conv2d_backward(dy, x, w, **options)
    put = sizes if dtype is None else short
    put(monkeypatch, x=x, dy=dy, dweight=w)
    there = [strided(testing.lay_out(a, layout)) if dtype is None else sent(a, dtype) for a in (dy, x, w)]
    assert fc.cuda.plan("conv2d_backward_weight", *there[1:], **options).algorithm == "depthwise"
    found = fc.cuda.conv2d_backward(*there, **options, output_mask=(False, True, False))[1]
    found = fc.cuda.to_host(found) if dtype is None else fetched(found)
    assert (found == expected).all() and Machine.ran[0][0].startswith("wgrad_depthwise")


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


# -- the fully connected layer -------------------------------------------------------------------------------

LW = rng.integers(-3, 4, (12, 8)).astype(np.float32)
LB = rng.integers(-3, 4, 12).astype(np.float32)


@pytest.mark.parametrize(
    "precision, kernels",
    [
        ("strict", ("gemm_f32_forward", "gemm_f32_forward", "gemm_f32_weight_gradient")),
        ("fast", ("igemm_sm90_f32", "igemm_sm90_f32", "wgrad_sm80_f32")),
        ("tf32", ("igemm_sm90_tf32", "igemm_sm90_tf32", "wgrad_sm80_tf32")),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "negative"])
def test_linear(precision, kernels, layout, monkeypatch):
    x, dy = X[..., :7, :], rng.integers(-3, 4, (2, 6, 7, 12)).astype(np.float32)
    kernels = [k.replace("gemm_f32_forward", "thin_f32_4") for k in kernels]
    y, gradients = fc.linear(x, LW, LB), fc.linear_backward(dy, x, LW)
    there = [strided(testing.lay_out(a, layout)) for a in (dy, x, LW)]
    with fc.precision(precision):
        sizes(monkeypatch, x=x, weight=LW, bias=LB, y=y)
        found = fc.cuda.linear(*there[1:], fc.cuda.to_device(LB))
        assert (fc.cuda.to_host(found) == y).all()
        sizes(monkeypatch, dy=dy, x=x, weight=LW, dx=x, dweight=LW)
        found = fc.cuda.linear_backward(*there)
    assert all((fc.cuda.to_host(a) == b).all() for a, b in zip(found, gradients))
    assert all(any(n.startswith(k) for n in names) for k, names in zip(kernels, Machine.ran, strict=True))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_linear(dtype, monkeypatch):
    x, w, b, dy = (real(s, dtype) for s in ((3, 5, 8), (16, 8), (16,), (3, 5, 16)))
    arrays = [sent(a, dtype) for a in (dy, x, w)]
    expected = fc.reference.linear(*wide(x, w, b)), *fc.reference.linear_backward(*wide(dy, x, w))
    magnitude = [
        fc.reference.linear(*map(np.abs, wide(x, w, b))),
        *fc.reference.linear_backward(*map(np.abs, wide(dy, x, w))),
    ]
    short(monkeypatch, dy=dy, x=x, weight=w, bias=b, y=dy, dx=x, dweight=w)
    found = fc.cuda.linear(arrays[1], arrays[2], sent(b, dtype)), *fc.cuda.linear_backward(*arrays)
    for a, right, size, length in zip(found, expected, magnitude, (9, 16, 15, 15)):
        testing.compare(fetched(a), right, bounds.bound(size, length, dtype))
    engines = [names[-1].rpartition(f"_{WORD[dtype]}")[0] for names in Machine.ran]
    assert engines == ["igemm_sm90", "igemm_sm90", "wgrad_sm90"]


def test_linear_of_float64_is_left_to_simple_kernels():
    arrays = X.astype(np.float64), LW.astype(np.float64)
    found = fc.cuda.linear(*map(fc.cuda.to_device, arrays))
    testing.compare(fc.cuda.to_host(found), fc.linear(*arrays), np.zeros(found.shape))
    assert not Machine.ran


# -- memory-bound functions, in every dtype ------------------------------------------------------------------


class Sent:
    """Arrays of a dtype on the device, and what fast kernels do with them through public functions."""

    def __init__(self, dtype, monkeypatch):
        self.dtype, self.patch = dtype, monkeypatch

    def __call__(self, a):
        there = self.dtype != "float32" and a.dtype == np.float32
        return sent(a, self.dtype) if there else fc.cuda.to_device(a)

    def bytes_of(self, a):
        return a.size * (2 if a.dtype == np.float32 and self.dtype != "float32" else a.itemsize)

    def run(self, function, *arrays, buffers, single=(), **options):
        """Results, float32 or as they are; buffers: name -> an array of that size; single: always float32."""
        sizes = {n: a.nbytes if n in single else self.bytes_of(a) for n, a in buffers.items()}
        self.patch.setattr(Prepared, "sizes", sizes)
        there = [a if a is None or isinstance(a, (tuple, int, float)) else self(a) for a in arrays]
        found = getattr(fc.cuda, function)(*there, **options)
        found = found if isinstance(found, tuple) else (found,)
        return [self.back(a) for a in found]

    def back(self, a):
        if a is None:
            return None
        return fetched(a) if self.dtype != "float32" else fc.cuda.to_host(a)

    def compare(self, found, expected, limit):
        if self.dtype != "float32":
            limit = bounds.rounded(expected, limit, self.dtype)
        testing.compare(found, expected, limit)


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def there(request, monkeypatch):
    return Sent(request.param, monkeypatch)


def ran():
    return [names[0] for names in Machine.ran]


def test_elementwise_functions(there):
    (x,) = there.run("relu", X, buffers=dict(x=X, out=X))
    assert (x == fc.relu(X)).all()
    (dx,) = there.run("tanh_backward", X, X / 4, buffers=dict(dy=X, y=X, out=X))
    limit = bounds.activation_backward("tanh", X, X / 4.0, 0.0, np.float32)
    there.compare(dx, X * (1 - (X / 4.0) ** 2), limit)
    mask = rng.random(X.shape) < 0.5
    (y,) = there.run("dropout_backward", X, mask, 0.5, buffers=dict(x=X, mask=mask, out=X))
    assert (y == np.where(mask, X * 2, 0)).all()
    assert [name.split("_")[0] for name in ran()] == ["relu", "tanh", "dropout"]


def test_rows(there):
    x = X.reshape(-1, 8)
    (y,) = there.run("softmax", x, buffers=dict(x=x, y=x))
    there.compare(y, fc.reference.softmax(wide(x)[0]), bounds.softmax(wide(x)[0], 1, False, np.float32))
    (dx,) = there.run("log_softmax_backward", x, x / 8, buffers=dict(dy=x, y=x, dx=x))
    expected = fc.reference.log_softmax_backward(*wide(x, x / 8))
    there.compare(dx, expected, bounds.softmax_backward(*wide(x, x / 8), 1, True, np.float32))
    target, kinds = np.arange(len(x)) % 8, ("mean", "sum", "none")
    for reduction in kinds:
        losses = np.empty(len(x), np.float32)
        single = ("count",) if reduction == "none" else ("count", "losses")
        buffers = dict(x=x, target=target, count=losses[:1], losses=losses, dx=x)
        found = there.run(
            "softmax_cross_entropy", x, target, buffers=buffers, single=single, reduction=reduction
        )
        expected = fc.reference.softmax_cross_entropy(wide(x)[0], target, reduction=reduction)
        limits = bounds.cross_entropy(wide(x)[0], np.eye(8)[target], reduction, len(x), np.float32)
        for a, b, limit in zip(found, expected, limits):
            there.compare(a, b, limit)
    assert [name.split("_")[0] for name in ran()] == ["softmax", "log", "cross", "cross", "cross"]


def test_pools(there):
    options = dict(kernel_size=3, stride=2, padding=1)
    y, at = fc.max_pool2d(X, **options, return_indices=True)
    buffers = dict(x=X, y=y, indices=at)
    found = there.run("max_pool2d", X, buffers=buffers, **options, return_indices=True)
    assert all((a == b).all() for a, b in zip(found, (y, at)))
    wrong = np.zeros(1, np.int64)
    buffers = dict(dy=y, indices=at, dx=X, wrong=wrong)
    (dx,) = there.run("max_pool2d_backward", y, at, X.shape, buffers=buffers)
    assert (dx == fc.max_pool2d_backward(y, at, X.shape)).all()
    with pytest.raises(ValueError, match="max_pool2d_backward: index 56 is outside the plane of 56 elements"):
        there.run("max_pool2d_backward", y, at * 0 + 56, X.shape, buffers=buffers)
    (y,) = there.run("avg_pool2d", X, 2, buffers=dict(x=X, y=X[:, :, ::2, ::2][:, :, :3]))
    expected = fc.reference.avg_pool2d(wide(X)[0], 2)
    there.compare(y, expected, bounds.bound(np.abs(expected), 4, np.float32))
    dy = rng.integers(-3, 4, y.shape).astype(np.float32)
    (dx,) = there.run("avg_pool2d_backward", dy, X.shape, 2, buffers=dict(dy=dy, dx=X))
    assert (dx == fc.avg_pool2d_backward(dy, X.shape, 2)).all()
    names = ["max_pool_3x3", "max_pool_backward", "max_pool_backward", "avg_pool_2x2", "avg_pool_backward"]
    assert len(ran()) == len(names) and all(a.startswith(b) for a, b in zip(ran(), names))


def test_norms(there):
    C = X.shape[1]
    names = "weight", "bias", "running_mean", "running_var"
    numbers = {name: (np.arange(C, dtype=np.float32) + 4) / 4 for name in names}
    expected = fc.reference.batch_norm(*wide(X, *numbers.values()))
    arrays = [np.copy(a) for a in numbers.values()]
    (y,) = there.run("batch_norm", X, *arrays, buffers=dict(x=X, y=X, **numbers))
    options = False, 0.1, 1e-5
    there.compare(y, expected, bounds.batch_norm(*wide(X, *numbers.values()), *options, np.float32)[0])
    dy, weight = X[::-1].copy(), numbers["weight"]
    buffers = dict(dy=dy, x=X, dx=X, dweight=weight, dbias=weight, weight=weight)
    found = there.run("batch_norm_backward", dy, X, weight, buffers=buffers)
    given = *wide(dy, X, weight), None, None, True, 1e-5
    expected = fc.reference.batch_norm_backward(*given[:3])
    for a, b, limit in zip(found, expected, bounds.batch_norm_backward(*given, np.float32)):
        there.compare(a, b, limit)
    (y,) = there.run("local_response_norm", X, 3, buffers=dict(x=X, out=X))
    expected = fc.reference.local_response_norm(wide(X)[0], 3)
    there.compare(y, expected, bounds.function(expected, np.float32, 16))
    buffers = dict(dy=dy, x=X, out=X)
    (dx,) = there.run("local_response_norm_backward", dy, X, 3, 1e-4, 0.75, 1.0, buffers=buffers)
    expected = fc.reference.local_response_norm_backward(*wide(dy, X), 3, 1e-4, 0.75, 1.0)
    there.compare(dx, expected, bounds.function(np.abs(dy) + np.abs(X), np.float32, 16))
    assert [name.split("_")[0] for name in ran()] == ["running", "channels", "response", "response"]
    assert [len(names) for names in Machine.ran] == [2, 3, 1, 1]


def test_bias_gradients_and_sums(there):
    from fastconv import _arithmetic

    dy, w = X, np.zeros((6, 1, 1, 1), np.float32)
    x = np.zeros((2, 1, 7, 8), np.float32)
    found = there.run(
        "conv2d_backward", dy, x, w, buffers=dict(x=dy, y=dy[0, :, 0, 0]), output_mask=(False, False, True)
    )
    assert (found[2] == dy.sum((0, 2, 3))).all()
    there.patch.setattr(Prepared, "sizes", {n: there.bytes_of(X) for n in ("a", "b", "out")})
    assert (there.back(_arithmetic.add(there(X), there(X), 0.5)) == X * 1.5).all()
    assert [name.split("_")[0] for name in ran()] == ["channels", "add"]
