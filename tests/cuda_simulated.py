"""The simple kernels in numba's CUDA simulator, against the reference: cases and bounds of the CPU's tests.

`test_cuda_simulator` runs this file in a process of its own, since NUMBA_ENABLE_CUDASIM must be set before
numba is imported and holds for the whole process. A thread of the system plays every thread of the device, at
some microseconds an operation, so that only small cases take part, each with one kind of inputs and one dtype
in turn.
"""

import numpy as np
import pytest
from cuda_device import Device

import fastconv as fc
from fastconv import testing
from fastconv.testing.operations import Convolution, Linear, Transposed

MULTIPLICATIONS = 4000  # of a convolution that takes part: some tenths of a second
ELEMENTS = 2600  # of all inputs together, of anything else
DEVICE = Device()

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's of NaN and infinities


def small(case):
    dtype = np.dtype(np.float32)
    if isinstance(case, (Convolution, Transposed)):
        return case.problem(dtype).flops <= 2 * MULTIPLICATIONS
    inputs = [a for a in case.inputs(dtype).values() if a is not None]
    if isinstance(case, Linear) and inputs[0].size * case.out > MULTIPLICATIONS:
        return False
    return sum(a.size for a in inputs) <= ELEMENTS


CASES = [case for case in testing.cases() if small(case)]
TURNS = [
    (case, case.kinds[turn % len(case.kinds)], testing.DTYPES[turn % 4 == 3])
    for turn, case in enumerate(CASES)
]


@pytest.mark.parametrize(
    "case, kind, dtype", TURNS, ids=lambda v: v.name() if isinstance(v, testing.Case) else ""
)
def test_case(case, kind, dtype, tally):
    testing.check(DEVICE, case, dtype, kind)
    tally["simulator"] += 1


CONVOLUTIONS = [case for case in CASES if isinstance(case, Convolution)]


@pytest.mark.parametrize("case", CONVOLUTIONS[::5], ids=lambda case: case.name())
def test_the_textbook_form(case, tally):
    assert testing.check(DEVICE, case, np.float32, "exact", "im2col")
    tally["simulator"] += 1


def test_every_function_takes_part():
    called = {function for case, _, _ in TURNS for function in case.functions}
    assert called >= {function for case in testing.cases() for function in case.functions}
    assert {type(case) for case, _, _ in TURNS} == {type(case) for case in testing.cases()}


def test_plan():
    x, w = fc.cuda.to_device(np.zeros((2, 3, 5, 5), np.float32)), np.zeros((4, 3, 3, 3), np.float32)
    plan = fc.plan("conv2d", x, fc.cuda.to_device(w))
    assert plan.algorithm == "simple" and plan.scratch_bytes == 0 and "im2col" in plan.refused
    assert plan.refused["ffma"] == "needs a GPU"
    assert fc.cuda.plan("conv2d", w[:2], w) == fc.cuda.plan("conv2d", w[:2], w)
    for direction in ("conv2d", "conv1d_backward_input", "conv3d_backward_weight"):
        assert {"simple", "im2col"} <= set(fc.cuda.algorithms(direction))
        assert fc.cuda.algorithms(direction)[-1] == "simple"
    with pytest.raises(ValueError, match="conv2d: algorithm 'fft' is unknown"):
        fc.conv2d(x, fc.cuda.to_device(w), algorithm="fft")
    eight, many = (
        fc.cuda.plan("conv2d_backward_weight", np.zeros((n, 3, 5, 5), np.float32), w) for n in (8, 64)
    )
    assert eight.scratch_bytes == many.scratch_bytes > 0
