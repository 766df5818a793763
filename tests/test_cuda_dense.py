"""Programs of the fully connected layer in the emulator, against products of matrices in float64.

Integer-valued inputs must come out exactly, rounded once to the result's dtype.
"""

import numpy as np
import pytest
from emulator import Device as Emulated
from test_cuda_kernels import assert_exact, decode, encode, integers, positive, real, run

from fastconv import testing
from fastconv.cuda import convolution, dense, select
from fastconv.cuda.gen.kernel import BYTES
from fastconv.cuda.select import Device
from fastconv.testing import bounds

H200, A100 = Device(90), Device(80, 108, 166912)
TARGET = {"linear": "y", "linear_backward_input": "dx", "linear_backward_weight": "dweight"}


def arrays_of(layer, rng, make):
    shapes = dict(
        x=(layer.rows, layer.inputs), weight=(layer.outputs, layer.inputs), dy=(layer.rows, layer.outputs)
    )
    arrays = {name: make(rng, shape) for name, shape in shapes.items()}
    return arrays | (dict(bias=make(rng, (layer.outputs,))) if layer.bias else {})


def product(direction, arrays):
    if direction == "linear":
        return arrays["x"] @ arrays["weight"].T + arrays.get("bias", 0.0)
    if direction == "linear_backward_input":
        return arrays["dy"] @ arrays["weight"]
    return arrays["dy"].T @ arrays["x"]


def chosen(direction, layer, dtype, precision, device):
    return next(select.linear_candidates(direction, layer, dtype, precision, device))


def computed(program, direction, arrays, dtype):
    """(result as float, device) of a program in the emulator."""
    device = Emulated(16)
    addresses = {name: device.put(encode(a, dtype)) for name, a in arrays.items()}
    shape = product(direction, arrays).shape
    addresses[TARGET[direction]] = device.allocate(int(np.prod(shape)) * BYTES[dtype])
    run(device, program, addresses)
    kind = np.float32 if BYTES[dtype] == 4 else np.uint16
    return decode(device.get(addresses[TARGET[direction]], shape, kind), dtype), device


LAYERS = {
    "one row": dense.Layer(1, 72, 40, True),
    "few rows": dense.Layer(7, 64, 36, True),
    "thin": dense.Layer(40, 20, 24),
    "odd": dense.Layer(17, 5, 7, True),
    "wide": dense.Layer(130, 96, 136, True),
}
KINDS = [("strict", "f32"), ("fast", "f32"), ("tf32", "f32"), ("fast", "bf16"), ("fast", "f16")]


@pytest.mark.parametrize("device", [H200, A100], ids=["sm_90", "sm_80"])
@pytest.mark.parametrize("precision, dtype", KINDS)
@pytest.mark.parametrize("title", LAYERS)
def test_layers(title, precision, dtype, device):
    if device is A100 and (precision == "strict" or dtype == "f16"):
        return  # the kernels are those of sm_90, or differ by a word from bf16
    layer = LAYERS[title]
    arrays = arrays_of(layer, np.random.default_rng(0), lambda rng, shape: integers(rng, shape, -1, 2))
    for direction in dense.DIRECTIONS:
        program = chosen(direction, layer, dtype, precision, device)
        needed = arrays if direction == "linear" else {n: a for n, a in arrays.items() if n != "bias"}
        found, emulated = computed(program, direction, needed, dtype)
        assert_exact(found, product(direction, needed), dtype)
        for operation in ("row_sums", "matrix_load", "outer_sum", "copy16"):
            assert emulated.conflicts.get(operation, 1) == 1


@pytest.mark.parametrize("make", [real, positive])
@pytest.mark.parametrize("device", [H200, A100], ids=["sm_90", "sm_80"])
def test_float32_accuracy(device, make):
    """Three TF32 products meet the bound of a float32 sum, which one misses."""
    layer = dense.Layer(9, 800, 24)
    arrays = arrays_of(layer, np.random.default_rng(1), make)
    for direction, length in (("linear", 800), ("linear_backward_input", 24)):
        expected = product(direction, arrays)
        magnitude = product(direction, {n: np.abs(a) for n, a in arrays.items()})
        limit = bounds.bound(magnitude, length, np.float32)
        for precision in ("strict", "fast"):
            found, _ = computed(chosen(direction, layer, "f32", precision, device), direction, arrays, "f32")
            testing.compare(found, expected, limit)
        found, _ = computed(chosen(direction, layer, "f32", "tf32", device), direction, arrays, "f32")
        assert (np.abs(found - expected) > limit).any()


@pytest.mark.parametrize("device", [H200, A100], ids=["sm_90", "sm_80"])
@pytest.mark.parametrize("precision, dtype", KINDS[:4])
def test_a_row_does_not_see_how_many_there_are(precision, dtype, device, monkeypatch):
    """Tiles depend on the number of rows, bits do not; and what is not finite stays in its own row."""
    layer = dense.Layer(150, 72, 40, True)
    arrays = arrays_of(layer, np.random.default_rng(2), real)
    spoilt = {n: a.copy() for n, a in arrays.items()}
    spoilt["x"][5:9], spoilt["dy"][5:9] = np.nan, np.inf
    for direction in dense.DIRECTIONS[:2]:
        with monkeypatch.context() as small:  # a device that wide tiles fill
            for module in (convolution, dense):
                small.setattr(module, "SMS", 1)
            select.linear.cache_clear()
            program = chosen(direction, layer, dtype, precision, device)
        select.linear.cache_clear()
        wide = program.steps[-1].kernel
        with np.errstate(invalid="ignore"):
            whole, _ = computed(program, direction, spoilt, dtype)
        assert not np.isfinite(whole[5:9]).any() and np.isfinite(whole[9:]).all()
        for rows in (1, 3, 5):
            few = {n: a[:rows] if n in ("x", "dy") else a for n, a in arrays.items()}
            program = chosen(direction, layer._replace(rows=rows), dtype, precision, device)
            assert program.steps[-1].kernel != wide
            found, _ = computed(program, direction, few, dtype)
            testing.same_bits(found, whole[:rows])


def kernels(direction, layer, dtype, precision="fast", device=H200):
    return [step.kernel.name for step in chosen(direction, layer, dtype, precision, device).steps]


def test_weights_are_read_where_they_lie():
    layer = dense.Layer(64, 4096, 1000, True)
    (name,) = kernels("linear", layer, "bf16")
    assert name.startswith("igemm_sm90_bf16")
    (name,) = kernels("linear_backward_input", layer, "bf16")
    assert name.startswith("igemm_sm90_bf16") and name.endswith("_turned")
    (name,) = kernels("linear", layer, "f32", "tf32")
    assert name.startswith("igemm_sm90_tf32")
    pack, name = kernels("linear", layer, "f32")  # x is split in advance, the weight on the way
    assert pack == "pack_weight_f32" and name.startswith("igemm_sm90_f32") and "_bias_position" in name
    (name,) = kernels("linear", layer, "f32", "fast", A100)
    assert name.startswith("igemm_sm80_f32")
    for direction in dense.DIRECTIONS[:2]:
        (name,) = kernels(direction, layer._replace(rows=9), "f32", "strict")
        assert name.startswith("thin_f32_4")
    (name,) = kernels("linear_backward_weight", layer, "bf16")
    assert name.startswith("wgrad_sm90_bf16") and name.endswith("_direct")


@pytest.mark.parametrize("precision, dtype", KINDS)
def test_small_batches_fill_the_device(precision, dtype):
    """No more than a quarter of 132 multiprocessors idles, where there are columns for all."""
    for rows in (1, 8, 16):
        program = chosen("linear", dense.Layer(rows, 4096, 4096), dtype, precision, H200)
        step = program.steps[-1]
        least = 64 if precision == "fast" and dtype == "f32" else 99  # three products: 64 columns a warpgroup
        assert step.grid[0] >= least, step.kernel.name


def test_what_no_kernel_takes():
    layer = dense.Layer(4, 8, 8)
    for device in (Device(0), Device(75)):
        assert not list(select.linear_candidates("linear", layer, "f32", "fast", device))
    assert not list(select.linear_candidates("linear", layer, None, "fast", H200))
    for empty in (dense.Layer(0, 8, 8), dense.Layer(4, 0, 8)):
        assert not list(select.linear_candidates("linear", empty, "f32", "fast", H200))
