"""Pooling: window tables and what each entry allocates. Arguments are already valid."""

import math
from functools import lru_cache

import numpy as np

from .. import _config
from . import isa
from .arrays import empty

INDEX = np.dtype(np.int64)
TABLES_KEPT = 1 << 14  # outputs along the three axes up to which a problem's tables (24 bytes each) are kept


def _windows(problem):
    """For each axis (begin, valid, divisor). A window wholly in padding sums to 0, whatever divides it."""
    tables = []
    for axis, (begin, valid, counted) in enumerate(problem.windows):
        divisor = np.ones(len(begin) + 16)  # kernels read whole vectors of it
        if problem.divisor_override is None:
            divisor[: len(begin)] = np.maximum(counted if problem.count_include_pad else valid, 1)
        elif axis == 2:
            divisor[: len(begin)] = problem.divisor_override
        tables.append((np.ascontiguousarray(begin, np.int64), np.ascontiguousarray(valid, np.int64), divisor))
    return tables


def _holders(problem):
    """For each axis (start, holder): input i lies in windows of outputs holder[start[i] : start[i + 1]]."""
    tables = []
    for (begin, valid, _), size, dilation in zip(problem.windows, problem.size, problem.dilation):
        holder = np.repeat(np.arange(len(begin), dtype=np.int64), valid)
        tap = np.arange(len(holder)) - np.repeat(np.cumsum(valid) - valid, valid)
        index = begin[holder] + tap * dilation
        start = np.zeros(size + 1, np.int64)
        np.cumsum(np.bincount(index, minlength=size), out=start[1:])
        tables.append((start, holder[np.argsort(index, kind="stable")]))
    return tables


def _make_shape(kernels, problem, backward):
    return kernels.PoolShape(problem, _windows(problem), _holders(problem) if backward else None)


@lru_cache(maxsize=256)
def _kept_shape(kernels, problem, backward):
    return _make_shape(kernels, problem, backward) if sum(problem.out) <= TABLES_KEPT else None


def _shape(kernels, problem, backward=False):
    """The problem as the C structure that the kernels read."""
    return _kept_shape(kernels, problem, backward) or _make_shape(kernels, problem, backward)


def max_pool(x, problem, return_indices):
    y = empty(problem.y_shape, problem.dtype)
    indices = empty(problem.y_shape, INDEX) if return_indices else None
    if problem.N:
        kernels = isa.active()
        kernels.max_pool(x, y, indices, _shape(kernels, problem), _config.get_num_threads())
    return y, indices


def max_pool_backward(dy, indices, problem):
    dx = empty(problem.x_shape, problem.dtype)
    plane, outputs = math.prod(problem.size), math.prod(problem.out)
    planes, threads = problem.N * problem.C, _config.get_num_threads()
    wrong = isa.active().max_pool_backward(dy, indices, dx, planes, plane, outputs, threads)
    if wrong is not None:
        raise ValueError(
            f"{problem.op}: index {wrong} is outside the plane of {plane} elements"
            f" (need 0 <= index < {plane}, or -1 for a window wholly in padding)"
        )
    return dx


def avg_pool(x, problem):
    y = empty(problem.y_shape, problem.dtype)
    if problem.N:
        kernels = isa.active()
        kernels.avg_pool(x, y, _shape(kernels, problem), _config.get_num_threads())
    return y


def avg_pool_backward(dy, problem):
    dx = empty(problem.x_shape, problem.dtype)
    if problem.N:
        kernels = isa.active()
        kernels.avg_pool_backward(dy, dx, _shape(kernels, problem, True), _config.get_num_threads())
    return dx
