"""Products of matrices: one thread per element. Operands have four axes and any strides."""

from numba import cuda

from .launch import kernel, split


@kernel
def _product(a, b, bias, c):
    """c[n, g, i, j] = bias[j] + sum over l of a[n, g, i, l] * b[n, g, l, j]."""
    real = c.dtype.type
    for at in range(cuda.grid(1), c.size, cuda.gridsize(1)):
        rest, j = split(at, c.shape[3])
        rest, i = split(rest, c.shape[2])
        n, g = split(rest, c.shape[1])
        total = real(0)
        for inner in range(a.shape[3]):
            total += a[n, g, i, inner] * b[n, g, inner, j]
        if bias.size > 0:
            total += bias[j]
        c[n, g, i, j] = total


def products(call, a, b, c):
    """c = a b for every (n, g); c contiguous."""
    _product.launch(call, c.size, a, b, c.view((0,)), c)


def product(call, a, b, bias, c):
    """c = a b + bias, matrices; bias (columns,) or None; c contiguous."""
    bias = c.view((0,)) if bias is None else bias
    a, b, c = (m.view((1, 1, *m.shape), (0, 0, *m.strides)) for m in (a, b, c))
    _product.launch(call, c.size, a, b, bias, c)
