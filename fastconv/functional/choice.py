"""Insight into the choice of algorithms: what can be named, and what "auto" would choose."""

import numpy as np

from .. import _arguments as arguments
from .._backends import of as backend_of
from .._problem import ConvProblem
from . import activation, conv, dense, loss, pool

__all__ = ["algorithms", "plan"]

CONV = tuple(f"conv{n}d" for n in (1, 2, 3))
TRANSPOSE = tuple(f"conv_transpose{n}d" for n in (1, 2, 3))
GRADIENTS = ("_backward_input", "_backward_weight")

# What runs inside each operation: a convolution in one of its directions. The gradient of a transposed
# convolution's input is an ordinary convolution, and the other way round.
DIRECTION = {
    **{op + part: op + part for op in CONV for part in ("", *GRADIENTS)},
    **{t: f"{op}_backward_input" for t, op in zip(TRANSPOSE, CONV)},
    **{f"{t}_backward_input": op for t, op in zip(TRANSPOSE, CONV)},
    **{f"{t}_backward_weight": f"{op}_backward_weight" for t, op in zip(TRANSPOSE, CONV)},
}
OPERATIONS = (
    *DIRECTION,
    *(op for room in (conv, pool, activation, loss, dense) for op in room.__all__ if op not in DIRECTION),
)


def algorithms(op):
    """The algorithms that can be named for an operation: a tuple of strings.

    op: the name of a public operation, such as "conv2d" or "max_pool2d". The directions of a convolution are
    separate: "conv2d", "conv2d_backward_input", "conv2d_backward_weight"; "conv2d_backward" gives those that
    are valid for both gradients.

    Raises ValueError for another name, with a list of them.
    """
    _known("algorithms", op)
    backend = backend_of("algorithms")
    if op in DIRECTION:
        return tuple(backend.algorithms(DIRECTION[op]))
    if f"{op}_input" in DIRECTION:
        dweight = backend.algorithms(DIRECTION[f"{op}_weight"])
        return tuple(name for name in backend.algorithms(DIRECTION[f"{op}_input"]) if name in dweight)
    return tuple(backend.algorithms(op))


def plan(op, *args, **kwargs):
    """What a call would run, without running it.

    op: "conv2d", "conv2d_backward_input", "conv2d_backward_weight", "conv_transpose2d" (and its two
    gradients), for one to three dimensions; or any other operation, which has one algorithm and whose
    arguments are not looked at. The other arguments are those of the forward call, ``(x, weight, bias=None,
    stride=1, ...)`` with ``algorithm=``; instead of arrays, objects with `shape` and `dtype` will do.

    Returns an object with `algorithm` (the name), `refused` (name -> why not, of the others),
    `flops` (of the direct sum) and `scratch_bytes` (memory needed besides arguments and result).

    Raises what the call would raise.
    """
    _known("plan", op)
    if op not in DIRECTION:
        if f"{op}_input" in DIRECTION:
            raise ValueError(f"plan: {op} has two directions, ask for '{op}_input' or '{op}_weight'")
        return backend_of("plan").plan(op, None)
    problem_of = _transpose_problem if op.startswith("conv_transpose") else _conv_problem
    arrays, problem, algorithm = problem_of(op, *args, **kwargs)
    backend = backend_of("plan", *arrays)
    if algorithm != "auto":
        conv._must_run(backend, DIRECTION[op], problem, algorithm)
    return backend.plan(DIRECTION[op], problem, algorithm)


def _known(what, op):
    if not isinstance(op, str):
        raise TypeError(f"{what}: op must be a string, got {arguments.show(op)}")
    if op not in OPERATIONS:
        raise ValueError(f"{what}: {op!r} is not an operation, need one of {', '.join(OPERATIONS)}")


def _conv_problem(
    op, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", activation=None, algorithm="auto",
):  # fmt: skip
    arrays = [_stand_in(array) for array in (x, weight, bias)]
    options = (stride, padding, dilation, groups, padding_mode, activation)
    problem = ConvProblem.of(*arrays, *options, ndim=_rank(op), op=_forward_name(op))
    return arrays, problem, algorithm


def _transpose_problem(
    op, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, algorithm="auto"
):
    arrays = [_stand_in(array) for array in (x, weight, bias)]
    options = (stride, padding, output_padding, groups, dilation)
    problem = ConvProblem.of_transpose(*arrays, *options, ndim=_rank(op), op=_forward_name(op))
    return arrays, problem, algorithm


_conv_problem.__qualname__ = _transpose_problem.__qualname__ = "plan"  # Python's own messages name it


def _forward_name(op):
    return op.partition("_backward")[0]


def _rank(op):
    return int(_forward_name(op)[-2])


def _stand_in(array):
    """An array of that shape and dtype in the memory of one element, for objects that only have these two."""
    if array is None or isinstance(array, np.ndarray) or arguments.on_device(array):
        return array
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        return array  # a list, say: the problem refuses it
    try:
        return np.broadcast_to(np.empty((), array.dtype), array.shape)
    except (TypeError, ValueError):
        return array
