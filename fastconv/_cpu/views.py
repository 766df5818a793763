"""Problems of convolution looked at in other ways, to compute them and to estimate what that costs."""

import math
from dataclasses import replace
from functools import lru_cache

VECTOR = 64  # bytes
TURN = 12  # vectors multiplied instead of turning round an output whose filters are lanes


@lru_cache(maxsize=4096)
def pointwise(problem):
    """Where the kernel covers the whole input, so that there is one output: the gradient of the input as a
    1x1 convolution of dy with a filter for every input value. None elsewhere.

    As a correlation of dy and its padding it would mostly multiply zeros.
    """
    if (
        problem.groups > 1
        or problem.size != problem.kernel
        or max(problem.pad_low + problem.pad_high)
        or math.prod(problem.out) > 1
    ):
        return None
    if any(step > 1 for step, taps in zip(problem.dilation, problem.kernel) if taps > 1):
        return None
    return _filters_of_taps(problem, problem.N, 1)


def _filters_of_taps(problem, samples, positions):
    """The 1x1 convolution of so many samples and positions of dy with a filter for every channel and tap of
    dx."""
    ones, none, row = (1, 1, 1), (0, 0, 0), (1, 1, positions)
    return replace(
        problem,
        op="conv2d",
        ndim=2,
        batched=True,
        N=samples,
        C=problem.K,
        K=problem.C * problem.taps,
        size=row,
        out=row,
        pad_low=none,
        pad_high=none,
        kernel=ones,
        stride=ones,
        dilation=ones,
        padding_mode="zeros",
        activation=None,
    )


SPREAD_WEIGHTS = 2 << 20  # bytes: more than a second-level cache holds beside what they are multiplied by
SPREAD_POSITIONS = 16  # of dy in a sample; with 25 of eight samples the phases are faster already
SPREAD_CHANNELS = 256  # of dy: an addition for so many multiply-adds costs a tenth of them
SPREAD_BYTES = 4 << 20  # of products at a time, if a sample has no more


@lru_cache(maxsize=4096)
def spread(problem):
    """Where the gradient of the input is made of many weights for few positions: (samples at a time, a
    function that gives, for a number of samples, a 1x1 convolution of dy with a filter for every channel and
    tap of dx). Its results are added where they belong. None elsewhere.

    Taken phase by phase of the stride, all weights would be read once for each phase, to be multiplied by
    little.
    """
    positions, itemsize = math.prod(problem.out), problem.dtype.itemsize
    if (
        problem.groups > 1
        or problem.padding_mode != "zeros"
        or math.prod(map(min, problem.stride, problem.kernel)) == 1
        or positions > SPREAD_POSITIONS
        or problem.K < SPREAD_CHANNELS
        or math.prod(problem.weight_shape) * itemsize < SPREAD_WEIGHTS
    ):
        return None
    products = problem.C * problem.taps * positions * itemsize
    return max(1, SPREAD_BYTES // products), lambda samples: _filters_of_taps(problem, samples, positions)


@lru_cache(maxsize=4096)
def blind(problem):
    """Outputs whose windows see nothing but zeros of the padding, which they do where they are so along any
    axis: the positions along each axis, None if there are none at all."""
    found = tuple(_blind(problem, axis) for axis in range(3))
    return found if problem.padding_mode == "zeros" and any(map(len, found)) else None


def _blind(problem, axis):
    size, taps, out = problem.size[axis], problem.kernel[axis], problem.out[axis]
    step, low, dilation = problem.stride[axis], problem.pad_low[axis], problem.dilation[axis]
    inside, behind = min(-(-low // step), out), min(-(-(size + low) // step), out)  # where windows begin
    first = [o * step - low for o in range(inside)]
    tap = [-(i // dilation) for i in first]  # the first that is not in front of the input
    missed = [t >= taps or i + t * dilation >= size for i, t in zip(first, tap)]
    return (*(o for o, nothing in enumerate(missed) if nothing), *range(max(behind, inside), out))


def phase_taps(problem):
    """Taps of one phase of the stride, along each axis."""
    return tuple(-(-taps // stride) for taps, stride in zip(problem.kernel, problem.stride))
