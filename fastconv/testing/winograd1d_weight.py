"""The bound on the gradient of the weights by Winograd's algorithm along one axis, here the height.

    dW = G^T [ sum over tiles of (A dy) * (B^T x) ]

with tiles of m rows of dy and m + r - 1 rows of x; the taps along the other axes are read directly. Where
there are no taps along the height, or too many, tiles lie along the width. As in
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


def axis(p):
    """The axis of the tiles: the height, if undilated and with 2 to 7 taps in a phase of its stride, or the width."""
    return next(a for a in (1, 2) if p.dilation[a] == 1 and 2 <= -(-p.kernel[a] // p.stride[a]) <= 7)


def backward_weight(dy, x, p, dtype):
    """|error| of dweight, in its shape; dy, x: float64 arrays; p: the problem."""
    # with height and width exchanged, tiles lie along the height
    order = (0, 1, 2) if axis(p) == 1 else (0, 2, 1)
    turn = (0, 1, 2, *(3 + a for a in order))
    kernel, stride, dilation, low, size, out = (
        [of[a] for a in order] for of in (p.kernel, p.stride, p.dilation, p.pad_low, p.size, p.out)
    )
    r = -(-kernel[1] // stride[1])
    tile = points(r, out[1])
    m = tile + 1 - r
    lines = -(-out[1] // m)
    BT, G, AT = winograd.transforms(tile, r)
    dy = np.abs(dy).reshape(p.N, p.groups, p.K // p.groups, *p.out).transpose(turn)
    dy = np.pad(dy, [(0, 0)] * 4 + [(0, lines * m - out[1]), (0, 0)])
    e = np.einsum("oi,ngkdtow->ngkdtiw", AT, dy.reshape(*dy.shape[:4], lines, m, out[2]))
    x = np.abs(x).reshape(p.N, p.groups, p.C // p.groups, *p.size).transpose(turn)
    x = np.pad(x, [(0, 0)] * 3 + [(0, 1)] * 3)  # what index -1 selects: a zero
    dw = np.zeros((p.groups, p.K // p.groups, p.C // p.groups, kernel[0], stride[1] * r, kernel[2]))
    for t, phase, s in np.ndindex(kernel[0], min(stride[1], kernel[1]), kernel[2]):
        # row i of tile j; no output reads rows beyond the last tap of the phase of the last output
        row = m * np.arange(lines)[:, None] + np.arange(tile)
        depth, height, width = (
            winograd._source(place, size[a], p.padding_mode)
            for a, place in enumerate(
                (
                    t * dilation[0] + stride[0] * np.arange(out[0]) - low[0],
                    phase + stride[1] * row - low[1],
                    s * dilation[2] + stride[2] * np.arange(out[2]) - low[2],
                )
            )
        )
        height = np.where(row < out[1] + -(-(kernel[1] - phase) // stride[1]) - 1, height, -1)
        d = x[:, :, :, depth[:, None, None, None], height[None, :, :, None], width]
        sums = np.einsum("ngkdtiw,ngcdtiw->gkci", e, np.einsum("ij,ngcdtjw->ngcdtiw", BT, d), optimize=True)
        dw[..., t, phase :: stride[1], s] = sums @ G
    limit = bounds.bound(dw[..., : kernel[1], :], p.N * out[0] * lines * out[2] + ROUNDINGS[tile], dtype)
    return limit.transpose(turn).reshape(p.weight_shape)
