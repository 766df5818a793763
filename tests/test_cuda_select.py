"""The choice of fast kernels.

Reasons of refusal, order of preference, what a program consists of. No device.
"""

import numpy as np
import pytest
from test_cuda_kernels import problem_of

from fastconv.cuda import select
from fastconv.cuda.gen import igemm_sm90
from fastconv.cuda.select import Device

H200, A100, OLD, NONE = Device(90), Device(80, 108, 166912), Device(75), Device(0)
PROBLEM = problem_of(2, 64, 64, (14, 14), (3, 3), padding=1)
EMPTY = problem_of(0, 8, 8, (5, 5), (3, 3))


def refused(name, problem=PROBLEM, device=H200, direction="conv", dtype=None):
    return select.refused(name, direction, problem, device, dtype)


@pytest.mark.parametrize(
    "name, change, reason",
    [
        ("wgmma_3xtf32", dict(), None),
        ("wgmma_3xtf32", dict(device=NONE), "needs a GPU"),
        ("wgmma_3xtf32", dict(device=A100), "needs compute capability 9.0, got 8.0"),
        ("mma_3xtf32", dict(device=A100), None),
        ("mma_3xtf32", dict(device=Device(120)), None),
        ("ffma", dict(device=OLD), "needs compute capability 8.0 or later, got 7.5"),
        ("wgmma", dict(), "needs f16 or bf16 arrays, got f32"),
        ("wgmma", dict(dtype="bf16"), None),
        ("wgmma", dict(dtype="bf16", device=H200._replace(shared=90_000)), "bytes of shared memory"),
        ("wgmma_tf32", dict(problem=problem_of(1, 32, 32, (8, 8), (1, 1), groups=16)), "at most 8, got 16"),
        ("mma_tf32", dict(problem=problem_of(1, 32, 32, (8, 8), (1, 1), groups=16)), "8 channels or more a"),
        ("mma_tf32", dict(problem=problem_of(1, 256, 128, (8, 8), (3, 3), groups=16)), None),
        ("mma", dict(problem=problem_of(1, 144, 96, (8, 8), (3, 3), groups=12), dtype="bf16"),
        "whole 16 bytes"),
        ("ffma", dict(problem=problem_of(1, 144, 108, (8, 8), (3, 3), groups=12)), None),
        ("wgmma_tf32", dict(problem=problem_of(1, 64, 8, (99,), (3,), stride=9)), "most 8, got 9"),
        ("wgmma_tf32", dict(problem=problem_of(1, 64, 8, (300,), (3,), padding=129)), "corners"),
        ("wgmma_tf32", dict(problem=problem_of(1, 64, 8, (300,), (3,), padding=128, dilation=128)),
        "reaches 256"),
        ("wgmma_tf32", dict(problem=problem_of(1, 64, 8, (40, 40, 40), (3, 3, 3), padding=17)), "corners"),
        ("ffma", dict(problem=problem_of(1, 8, 8, (300,), (3,), padding=129, stride=9)), None),
        ("mma_tf32", dict(problem=problem_of(1, 8, 8, (40, 40, 40), (3, 3, 3), padding=17)), None),
        ("ffma", dict(problem=problem_of(1 << 20, 64, 64, (32, 32), (1, 1))), "at most 2147483647 elements"),
        ("ffma", dict(problem=EMPTY, direction="conv_backward_weight"), "needs a grid of"),
        ("mma_3xtf32", dict(problem=EMPTY, direction="conv_backward_weight"), "needs a grid of"),
    ],
)  # fmt: skip
def test_refusals(name, change, reason):
    found = refused(name, **change)
    assert found is None if reason is None else reason in found, found


def test_other_dtypes_and_paddings_are_refused():
    from dataclasses import replace

    double = replace(PROBLEM, dtype=np.dtype(np.float64))
    assert "got float64" in refused("ffma", double)
    assert "padding_mode='zeros'" in refused("ffma", replace(PROBLEM, padding_mode="reflect"))


def auto(problem, precision, device=H200, direction="conv", dtype=None):
    for name in select.names(direction):
        if refused(name, problem, device, direction, dtype) is None:
            if select.unsuited(name, problem, precision) is None:
                return name
    return "simple"


@pytest.mark.parametrize(
    "precision, device, expected",
    [
        ("strict", H200, "ffma"), ("fast", H200, "wgmma_3xtf32"), ("tf32", H200, "wgmma_tf32"),
        ("strict", A100, "ffma"), ("fast", A100, "mma_3xtf32"), ("tf32", A100, "mma_tf32"),
        ("fast", OLD, "simple"), ("fast", NONE, "simple"),
    ],
)  # fmt: skip
def test_precision_decides(precision, device, expected):
    assert (
        auto(PROBLEM, precision, device)
        == auto(PROBLEM, precision, device, "conv_backward_input")
        == expected
    )
    weight = expected.replace("wgmma", "mma")  # wgmma has no transposed operands of 32 bits
    assert auto(PROBLEM, precision, device, "conv_backward_weight") == weight


def test_many_groups_are_one_launch():
    problem = problem_of(2, 256, 256, (14, 14), (3, 3), padding=1, groups=32)
    for direction in select.DIRECTIONS:
        assert auto(problem, "fast", direction=direction) == "mma_3xtf32"
        assert auto(problem, "strict", direction=direction) == "ffma"
        assert auto(problem, "strict", direction=direction, dtype="bf16") == "mma"
        for name in ("mma_3xtf32", "ffma"):
            views = select.contiguous_views(direction, problem)
            steps = select.program_of(name, direction, problem, "f32", *views).steps
            products = [s for s in steps if s.kernel.name.startswith(("igemm", "wgrad", "gemm"))]
            assert len(products) == 1 and len(steps) <= 4


def test_tf32_is_never_silent():
    reason = select.unsuited("wgmma_tf32", PROBLEM, "fast")
    assert reason == "is single-pass TF32: needs set_precision('tf32'), got 'fast'"
    assert "three TF32 products" in select.unsuited("wgmma_3xtf32", PROBLEM, "strict")
    assert "single-pass TF32" in select.unsuited("mma_tf32", PROBLEM, "strict")
    assert "three TF32 products" in select.unsuited("mma_3xtf32", PROBLEM, "strict")


def test_half_precision_uses_tensor_cores_everywhere():
    for direction in select.DIRECTIONS:
        assert auto(PROBLEM, "strict", direction=direction, dtype="bf16") == "wgmma"
        assert auto(PROBLEM, "strict", A100, direction, "f16") == "mma"
    far = problem_of(1, 64, 8, (99,), (3,), stride=9)  # farther than the TMA unit steps
    assert auto(far, "strict", direction="conv_backward_weight", dtype="bf16") == "mma"


def test_the_choice_does_not_depend_on_the_batch():
    for n in (1, 3, 256):
        problem = problem_of(n, 64, 64, (14, 14), (3, 3), padding=1)
        assert auto(problem, "fast") == "wgmma_3xtf32"


def kernels(name, direction, problem, *views, dtype="f32"):
    program = select.program_of(name, direction, problem, dtype, *views)
    return [step.kernel.name.split("_")[0] + "_" + step.kernel.name.split("_")[1] for step in program.steps]


def test_channels_last_needs_no_layout_pass():
    first = select.view("x", PROBLEM, (14 * 14 * 64, 1, 0, 14 * 64, 64))
    last = select.view("y", PROBLEM, (14 * 14 * 64, 1, 0, 14 * 64, 64))
    direct = kernels("wgmma", "conv", PROBLEM, first, last, dtype="bf16")
    assert direct == ["pack_weight", "igemm_sm90"]
    copied = kernels("wgmma", "conv", PROBLEM, *select.contiguous_views("conv", PROBLEM), dtype="bf16")
    assert copied == ["channels_last", "pack_weight", "igemm_sm90"]


def test_strided_gradient_is_one_product_a_phase():
    problem = problem_of(2, 64, 64, (14, 14), (3, 3), stride=2, padding=1)
    views = select.contiguous_views("conv_backward_input", problem)
    assert kernels("wgmma_3xtf32", "conv_backward_input", problem, *views).count("igemm_sm90") == 4


def test_every_tile_fits_the_device():
    for dtype in ("bf16", "f16", "tf32", "f32"):
        for rows in (8, 64, 65, 128, 200, 256, 1000):
            for positions in (1, 100, 5000, 10**6):
                bn, consumers, blocks = select.convolution.wgmma_tile(dtype, positions, rows)
                kernel = igemm_sm90.kernel(dtype, 2, bn, consumers, blocks=blocks)
                assert bn <= 256 and kernel.shared <= H200.shared
                assert igemm_sm90.stages_that_fit(dtype, bn, consumers, blocks) >= 2
