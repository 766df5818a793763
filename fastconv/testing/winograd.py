"""The bound on Winograd convolution: how its transforms amplify rounding errors, element by element.

Winograd's algorithm computes tiles of m outputs from m + r - 1 inputs along each axis, 6 or 8 of them,

    y = A^T [ (G w G^T) * (B^T d B) ] A ,        summed over channels before A is applied.

A stride cuts the sum into phases, each of which is a convolution of stride 1 that is computed so; a
dilation cuts the outputs into phases, each of which is a convolution of dilation 1. The algorithm is exact in real numbers, but its intermediate values are larger than the result, and what they are
off by stays when they cancel. Evaluated with the absolute values of the three matrices and of the data, the
same formula sums the absolute values of everything that cancels: the magnitude that takes the place of
conv(|x|, |w|) in the bound of a direct sum. It depends on where an element lies in its tile, and on its
neighbours there.

Where m does not divide the outputs of an axis, a kernel may let some tiles be short: they yield m - 1 outputs,
the next tile begins with the m-th, and the point at infinity, which takes part in the m-th alone, is left out.
What remains of such a tile is computed as in a whole one. The bound is the larger one of both ways to cut an
axis, element by element.

Scaling a point of G and unscaling it in B^T changes neither the algorithm nor this magnitude, so it follows
from the interpolation points alone. The matrices are made here from the points, by Lagrange's formula, and
not taken from the kernels that are to be judged.

Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; B. Barabasz et al.,
"Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020.
"""

import functools
import itertools
import math

import numpy as np

from . import bounds

TILES = {"winograd": 6, "winograd8": 8}
"""Algorithm -> inputs of its tiles along an axis."""

ONE_AXIS = "winograd1d"
"""Stands for the inputs of a tile of the algorithm of that name, which depend on the problem: its transforms
go along one axis only (`winograd1d`, `winograd1d_weight`)."""

POINTS = {6: (0.0, 5 / 8, -5 / 8, 3 / 2, -3 / 2), 8: (0.0, 1 / 2, -1 / 2, 1.0, -1.0, 2.0, -2.0)}  # and infinity

ROUNDINGS = {6: 32, 8: 38}
"""Roundings that an element of the result has gone through, besides those of the sum over channels.

A transform along one axis passes a value through at most 4 for the inputs (two products with constants, two
sums; a sum more with 8 points) and 4 for the outputs (5); the filter's through 6 (three or four sums, a product
with a power of the point, one with a constant that is rounded itself; 7). Two axes: 28 (34). Four more for the
product, the bias, storing, and the reference.
"""


def used(chosen):
    """Of {result: algorithm}, those by Winograd's algorithm: {result: inputs of a tile, or ONE_AXIS}."""
    known = TILES | {ONE_AXIS: ONE_AXIS}
    return {name: known[algorithm] for name, algorithm in chosen.items() if algorithm in known}


def matrices(tile, r):
    """(B^T, G, A^T) of the tile of `tile` inputs for r taps: A^T [(G w) * (B^T d)] correlates d with w."""
    points, m, last = POINTS[tile], tile + 1 - r, tile - 1
    whole = np.poly(points)[::-1]  # product of (t - p), coefficients from t^0 up
    BT, G, AT = np.zeros((tile, tile)), np.zeros((tile, r)), np.zeros((m, tile))
    for j, point in enumerate(points):
        others = [p for p in points if p != point]
        BT[j, :last] = np.poly(others)[::-1]
        G[j] = point ** np.arange(r) / np.prod([point - p for p in others])
        AT[:, j] = point ** np.arange(m)
    BT[last], G[last, r - 1], AT[m - 1, last] = whole, 1, 1
    return BT, G, AT


def transforms(tile, r):
    """The matrices in absolute values."""
    return tuple(np.abs(matrix) for matrix in matrices(tile, r))


class _Cut:
    """Tiles of an axis: first output of each, and how many outputs it yields."""

    def __init__(self, out, m, short):
        count = -(-out // m)
        self.lengths = np.repeat([m, m - 1], [count - short, short])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.yields = np.arange(m) < self.lengths[:, None]
        """(tiles, m): which outputs of a tile it yields."""


def _cuts(out, m):
    """Pairs of cuts of the two axes: of whole tiles, and of as many short ones as there can be."""
    return itertools.product(*([_Cut(o, m, short) for short in {0, _most_short(o, m)}] for o in out))


def _most_short(out, m):
    count = -(-out // m)
    return min(count, count * m - out)


def _tiles(plane, first, cut, width):
    """(N, C, H, W) -> (N, C, th, tw, width, width): tile t, u begins at first + its starts. Zeros outside."""
    h, w = (start + axis.starts[:, None] + np.arange(width) for start, axis in zip(first, cut))
    H, W = plane.shape[-2:]
    h, w = (np.where((i >= 0) & (i < n), i, -1) for i, n in ((h, H), (w, W)))
    plane = np.pad(plane, [(0, 0), (0, 0), (0, 1), (0, 1)])  # what index -1 selects: a zero
    return plane[:, :, h[:, None, :, None], w[None, :, None, :]]


def _points(matrix, tiles):
    """Both axes of the tiles (..., a, b) transformed."""
    return np.einsum("pa,...ab,qb->...pq", matrix, tiles, matrix, optimize=True)


def _correlation(x, w, first, out, tile):
    """The sum over c of x[n, g, c] correlated with w[g, k, c]: `out` outputs, the first at `first` of x."""
    (N, G, C), r = x.shape[:3], w.shape[-1]
    BT, filters, AT = transforms(tile, r)
    found = []
    for cut in _cuts(out, tile + 1 - r):
        d = _points(BT, _tiles(x.reshape(N, G * C, *x.shape[3:]), first, cut, tile))
        d = d.reshape(N, G, C, *d.shape[2:])
        y = _points(AT, np.einsum("gkcpq,ngctupq->ngktupq", _points(filters, w), d))
        h, w_ = (axis.yields for axis in cut)
        y = y.transpose(0, 1, 2, 3, 5, 4, 6).reshape(N, G, w.shape[1], h.size, w_.size)
        found.append(y[..., h.ravel(), :][..., w_.ravel()][..., : out[0], : out[1]])
    return functools.reduce(np.maximum, found)


def _outer(x, dy, r, tile):
    """The gradient with respect to w of the above, from position 0 on, and the length of its sums."""
    (N, G, C), K, m = x.shape[:3], dy.shape[2], tile + 1 - r
    BT, filters, AT = transforms(tile, r)
    found = []
    for cut in _cuts(dy.shape[-2:], m):
        d = _points(BT, _tiles(x.reshape(N, G * C, *x.shape[3:]), (0, 0), cut, tile))
        e = _tiles(dy.reshape(N, G * K, *dy.shape[3:]), (0, 0), cut, m)
        h, w = (axis.yields for axis in cut)
        e = _points(AT.T, e * h[:, None, :, None] * w[:, None, :])  # what a tile does not yield, it has no gradient of
        d, e = d.reshape(N, G, C, *d.shape[2:]), e.reshape(N, G, K, *e.shape[2:])
        found.append(_points(filters.T, np.einsum("ngktupq,ngctupq->gkcpq", e, d)))
    return functools.reduce(np.maximum, found), N * len(h) * len(w)


# ---- strides: a sum over phases, each of which is a convolution of stride 1; dilations: a map for every phase -


def _taps(p):
    """Taps of a phase of the stride: the same along both axes."""
    r = {-(-k // s) for k, s in zip(p.kernel[1:], p.stride[1:])}
    if p.out[0] * p.kernel[0] * p.size[0] != 1 or len(r) > 1 or min(math.prod(p.stride), math.prod(p.dilation)) > 1:
        raise NotImplementedError(f"{p.name}: no bound for Winograd's algorithm is known here")
    return r.pop()


def _weight_phases(weight, p):
    """|weight| as (G, K, C, sh, sw, r, r): tap a + s * i is tap i of phase a, zero beyond the kernel."""
    r, (sh, sw) = _taps(p), p.stride[1:]
    w = np.abs(weight).reshape(p.groups, p.K // p.groups, p.C // p.groups, *p.kernel[1:])
    w = np.pad(w, [(0, 0)] * 3 + [(0, r * sh - p.kernel[1]), (0, r * sw - p.kernel[2])])
    return w.reshape(*w.shape[:3], r, sh, r, sw).transpose(0, 1, 2, 4, 6, 3, 5)


def _source(position, size, mode):
    """The element that stands at each position of a padded axis, -1 for a zero."""
    if mode == "replicate":
        return np.clip(position, 0, size - 1)
    if mode == "circular":
        return position % size
    if mode == "reflect":
        position = position % max(2 * (size - 1), 1)
        return np.minimum(position, max(2 * (size - 1), 1) - position) if size > 1 else 0 * position
    return np.where((position >= 0) & (position < size), position, -1)


def _maps(p):
    """Phases of the dilation, and the (largest) outputs of each."""
    dilation = p.dilation[1:]
    return np.ndindex(*dilation), [-(-out // d) for out, d in zip(p.out[1:], dilation)]


def _source_phases(x, p, tile, map=(0, 0)):
    """|x| as (N, G, C * sh * sw, rows, columns): row i of phase a stands at a + s * i - pad_low, and with a
    dilation d, for the outputs of phase b of it, at b + d * i - pad_low.

    As far as whole tiles reach, which is beyond what the outputs need.
    """
    r = _taps(p)
    m = tile + 1 - r
    index = []
    for a, first, out in zip((1, 2), map, _maps(p)[1]):
        reach = -(-out // m) * m + r - 1
        steps = p.stride[a] * p.dilation[a] * np.arange(reach)
        position = np.arange(p.stride[a])[:, None] + first + steps - p.pad_low[a]
        index.append(_source(position, p.size[a], p.padding_mode))
    x = np.abs(x).reshape(p.N, p.groups, p.C // p.groups, *p.size[1:])
    x = np.pad(x, [(0, 0)] * 3 + [(0, 1), (0, 1)])  # what index -1 selects: a zero
    x = x[:, :, :, index[0][:, None, :, None], index[1][None, :, None, :]]
    return x.reshape(p.N, p.groups, p.C // p.groups * p.stride[1] * p.stride[2], *x.shape[-2:])


# ---- the three directions -------------------------------------------------------------------------------


def bound(magnitude, length, dtype, tile):
    """|error| of a result of Winograd's algorithm, `length` products summed between the transforms.

    THE bound, for a sum that is longer by the roundings of the transforms: their errors are as independent as
    those of the sum, each at most eps / 2 of what the magnitude adds up, and so part of the same random walk.
    """
    return bounds.bound(magnitude, length + ROUNDINGS[tile], dtype)


def forward(x, weight, bias, p, dtype, tile):
    """|error| of y, in its shape, before its activation; x, weight, bias: float64; p: the problem."""
    w = _weight_phases(weight, p)
    w = w.reshape(*w.shape[:2], -1, *w.shape[-2:])
    y = np.zeros((p.N, p.groups, p.K // p.groups, *p.out[1:]))
    maps, out = _maps(p)
    for a, b in maps:
        part = y[..., a :: p.dilation[1], b :: p.dilation[2]]
        part[...] = _correlation(_source_phases(x, p, tile, (a, b)), w, (0, 0), out, tile)[..., : part.shape[-2], : part.shape[-1]]
    if bias is not None:
        y = y + np.abs(bias).reshape(1, p.groups, -1, 1, 1)
    return bound(y, w.shape[2], dtype, tile).reshape(p.y_shape)


def backward_input(dy, weight, bias, p, dtype, tile):
    """|error| of dx, in its shape (or of the y of a transposed convolution, bias added)."""
    if p.padding_mode != "zeros":
        raise NotImplementedError(f"{p.name}: no bound for Winograd's algorithm is known here")
    w = _weight_phases(weight, p)[..., ::-1, ::-1].swapaxes(1, 2)
    dy = np.abs(dy).reshape(p.N, p.groups, p.K // p.groups, *p.out[1:])
    dx = np.zeros((p.N, p.groups, p.C // p.groups, *p.size[1:]))
    if math.prod(p.dilation) > 1:
        _dilated_input(dx, dy, w[:, :, :, 0, 0], p, tile)
    else:
        _strided_input(dx, dy, w, p, tile)
    if bias is not None:
        dx = dx + np.abs(bias).reshape(1, p.groups, -1, 1, 1)
    return bound(dx, p.K // p.groups, dtype, tile).reshape(p.x_shape)


def _dilated_input(dx, dy, w, p, tile):
    r = _taps(p)
    m = tile + 1 - r
    rows = [-(-n // d) for n, d in zip(p.size[1:], p.dilation[1:])]
    dy = np.pad(dy, [(0, 0)] * 3 + [(0, 1), (0, 1)])  # what index -1 selects: a zero
    for phase in np.ndindex(*p.dilation[1:]):
        # position a + d * i of dx takes dy from a + d * (i - r + 1) + low on, d apart
        h, w_ = (
            _source(a + low + d * (np.arange(-(-n // m) * m + r - 1) - r + 1), out, "zeros")
            for a, low, d, n, out in zip(phase, p.pad_low[1:], p.dilation[1:], rows, p.out[1:])
        )
        part = dx[..., phase[0] :: p.dilation[1], phase[1] :: p.dilation[2]]
        whole = _correlation(dy[..., h[:, None], w_], w, (0, 0), rows, tile)
        part[...] = whole[..., : part.shape[-2], : part.shape[-1]]


def _strided_input(dx, dy, w, p, tile):
    r, low = _taps(p), p.pad_low[1:]
    # position i of dx is row (i + low) // s of phase (i + low) % s; tiles begin at the row of position 0
    begin = [lo // s for lo, s in zip(low, p.stride[1:])]
    rows = [(n - 1 + lo) // s - b + 1 for n, lo, s, b in zip(p.size[1:], low, p.stride[1:], begin)]
    for phase in np.ndindex(*p.stride[1:]):
        part = _correlation(dy, w[:, :, :, phase[0], phase[1]], [b - r + 1 for b in begin], rows, tile)
        to, of = [], []
        for a, s, b, lo, n, count in zip(phase, p.stride[1:], begin, low, p.size[1:], rows):
            position = a + s * (b + np.arange(count)) - lo
            inside = (position >= 0) & (position < n)
            to.append(position[inside])
            of.append(np.flatnonzero(inside))
        dx[:, :, :, to[0][:, None], to[1]] = part[:, :, :, of[0][:, None], of[1]]


def backward_weight(dy, x, p, dtype, tile):
    """|error| of dweight, in its shape."""
    r, (sh, sw) = _taps(p), p.stride[1:]
    dy = np.abs(dy).reshape(p.N, p.groups, p.K // p.groups, *p.out[1:])
    dw, length = 0, 0
    for a, b in _maps(p)[0]:
        part, count = _outer(
            _source_phases(x, p, tile, (a, b)), dy[..., a :: p.dilation[1], b :: p.dilation[2]], r, tile
        )
        dw, length = dw + part, length + count
    dw = dw.reshape(*dw.shape[:2], p.C // p.groups, sh, sw, r, r).transpose(0, 1, 2, 5, 3, 6, 4)
    dw = dw.reshape(*dw.shape[:3], r * sh, r * sw)[..., : p.kernel[1], : p.kernel[2]]
    return bound(dw, length, dtype, tile).reshape(p.weight_shape)
