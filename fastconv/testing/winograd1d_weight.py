"""The bound on the gradient of the weights by Winograd's algorithm along the height alone.

    dW = G^T [ sum over tiles of (A dy) * (B^T x) ]

with tiles of m rows of dy and m + r - 1 rows of x; the taps along the other axes are read directly. As in
`winograd`, whose points and argument these are, the absolute values of the matrices and of the data give the
magnitude of what cancels; the transforms along one axis are half of those along two.
"""

import numpy as np

from . import bounds, winograd

ROUNDINGS = {6: 18, 8: 21}
"""As those of `winograd`, for transforms along one axis: 14 (17), and four more."""


def points(r, rows):
    """Points of the tiles for r taps and so many rows of outputs: 6, or 8 where they alone serve, or where
    they take nine tenths of the products or less."""
    six, eight = (tile * -(-rows // max(tile + 1 - r, 1)) for tile in (6, 8))
    return 8 if r > 5 or (r > 2 and 10 * eight <= 9 * six) else 6


def backward_weight(dy, x, p, dtype):
    """|error| of dweight, in its shape; dy, x: float64 arrays; p: the problem."""
    stride, kernel = p.stride, p.kernel
    r = -(-kernel[1] // stride[1])
    tile = points(r, p.out[1])
    m = tile + 1 - r
    lines = -(-p.out[1] // m)
    BT, G, AT = winograd.transforms(tile, r)
    dy = np.abs(dy).reshape(p.N, p.groups, p.K // p.groups, *p.out)
    dy = np.pad(dy, [(0, 0)] * 4 + [(0, lines * m - p.out[1]), (0, 0)])
    e = np.einsum("oi,ngkdtow->ngkdtiw", AT, dy.reshape(*dy.shape[:4], lines, m, p.out[2]))
    x = np.abs(x).reshape(p.N, p.groups, p.C // p.groups, *p.size)
    x = np.pad(x, [(0, 0)] * 3 + [(0, 1)] * 3)  # what index -1 selects: a zero
    dw = np.zeros((p.groups, p.K // p.groups, p.C // p.groups, kernel[0], stride[1] * r, kernel[2]))
    for t, phase, s in np.ndindex(kernel[0], min(stride[1], kernel[1]), kernel[2]):
        depth, width = (
            tap * p.dilation[axis] + stride[axis] * np.arange(p.out[axis]) - p.pad_low[axis]
            for axis, tap in ((0, t), (2, s))
        )
        # row i of tile j; no output reads rows beyond the last tap of the phase of the last output
        row = m * np.arange(lines)[:, None] + np.arange(tile)
        height = phase + stride[1] * row - p.pad_low[1]
        depth, height, width = (
            winograd._source(position, p.size[axis], p.padding_mode)
            for axis, position in enumerate((depth, height, width))
        )
        height = np.where(row < p.out[1] + -(-(kernel[1] - phase) // stride[1]) - 1, height, -1)
        d = x[:, :, :, depth[:, None, None, None], height[None, :, :, None], width]
        sums = np.einsum("ngkdtiw,ngcdtiw->gkci", e, np.einsum("ij,ngcdtjw->ngcdtiw", BT, d), optimize=True)
        dw[..., t, phase :: stride[1], s] = sums @ G
    length = p.N * p.out[0] * lines * p.out[2]
    limit = bounds.bound(dw[..., : kernel[1], :], length + ROUNDINGS[tile], dtype)
    return limit.reshape(p.weight_shape)

