"""The bound on convolution by Winograd's algorithm along one axis: y and dx.

As in `winograd`, but only the taps along one axis are transformed:

    y = A^T [ sum over channels, the other taps and phases of the stride of (G w) * (B^T d) ] ,

so that rounding errors are amplified once and not twice. How many points a tile has, its taps tell: 6 for up
to 5 of a phase of the stride, 8 for 6 and 7. A tile has two taps at least. The axis, height or width, is a
matter of speed: where either can be taken, the larger of both bounds holds.
"""

import math

import numpy as np

from . import bounds
from .winograd import _source, transforms

ROUNDINGS = {6: 18, 8: 21}
"""Roundings that an element has gone through besides those of the sum: half of the transforms of two axes
(`winograd.ROUNDINGS`), and four more for the product, the bias, storing, and the reference."""


def _axes(p):
    """Those that can be taken: 2 to 7 taps of a phase of the stride, not dilated."""
    found = [a for a in (1, 2) if p.dilation[a] == 1 and 2 <= -(-p.kernel[a] // p.stride[a]) <= 7]
    if not found:
        raise NotImplementedError(f"{p.name}: no bound for Winograd's algorithm along one axis is known here")
    return found


def _tile(taps):
    """(taps, points) of the tiles for so many taps of a phase."""
    taps = max(2, taps)
    return taps, 6 if taps <= 5 else 8


def _tiles(place, out, pieces, taps):
    """Indices [tile, piece, input] along the tiles' axis: place(i, piece) of input i of a piece of the taps."""
    taps, points = _tile(taps)
    m = points + 1 - taps
    i = m * np.arange(-(-out // m))[:, None, None] + np.arange(points)
    return np.concatenate([place(i, piece) for piece in range(pieces)], axis=1)


def _magnitude(x, w, axis, tiles, others, out, taps):
    """|A^T| [ sum of (|G| w) (|B^T| d) ]: (N, G, K, *out).

    x: (N, G, C, D, H, W); w: (G, K, C, taps of the other axes in order, piece, tap); tiles: indices into x
    along the axis, others: [output, tap] along the others, -1 for a zero; out: outputs along all three.
    """
    taps, points = _tile(taps)
    BT, G, AT = transforms(points, taps)
    x = np.pad(x, [(0, 0)] * 3 + [(0, 1)] * 3)  # what index -1 selects: a zero
    order = [i for i in range(3) if i != axis] + [axis]
    x = x.transpose(0, 1, 2, *(3 + i for i in order))
    u = np.einsum("pi,gkcabsi->gkcabsp", G, np.pad(w, [(0, 0)] * 6 + [(0, taps - w.shape[6])]))
    sums = 0
    for a in range(w.shape[3]):
        for b in range(w.shape[4]):
            first, second = others[0][:, a], others[1][:, b]
            d = x[:, :, :, first[:, None, None, None, None], second[None, :, None, None, None], tiles[None, None]]
            sums = sums + np.einsum("gkcsp,ngcqrtsp->ngkqrtp", u[:, :, :, a, b], np.einsum("pi,...i->...p", BT, d))
    y = np.einsum("mp,ngkqrtp->ngkqrtm", AT, sums)
    y = y.reshape(*y.shape[:5], y.shape[5] * y.shape[6])[..., : out[axis]]
    return np.moveaxis(y, 5, 3 + axis)


def forward(x, weight, bias, p, dtype):
    """|error| of y, in its shape, before its activation; x, weight, bias: float64; p: the problem."""
    return np.max([_forward(x, weight, bias, p, dtype, axis) for axis in _axes(p)], axis=0)


def _forward(x, weight, bias, p, dtype, axis):
    stride, taps = p.stride[axis], -(-p.kernel[axis] // p.stride[axis])
    pieces = min(stride, p.kernel[axis])
    x = np.abs(x).reshape(p.N, p.groups, p.C // p.groups, *p.size)
    w = np.abs(weight).reshape(p.groups, p.K // p.groups, p.C // p.groups, *p.kernel)
    w = np.moveaxis(w, 3 + axis, 5)
    w = np.pad(w, [(0, 0)] * 5 + [(0, taps * stride - p.kernel[axis])])
    w = w.reshape(*w.shape[:5], taps, stride).swapaxes(5, 6)[..., :pieces, :]
    source = lambda i, a: _source(i - p.pad_low[a], p.size[a], p.padding_mode)  # noqa: E731
    tiles = _tiles(lambda i, piece: source(i * stride + piece, axis), p.out[axis], pieces, taps)
    others = [
        source(np.arange(p.out[a])[:, None] * p.stride[a] + np.arange(p.kernel[a]) * p.dilation[a], a)
        for a in range(3)
        if a != axis
    ]
    y = _magnitude(x, w, axis, tiles, others, p.out, taps)
    if bias is not None:
        y = y + np.abs(bias).reshape(1, p.groups, -1, 1, 1, 1)
    length = p.C // p.groups * p.taps // p.kernel[axis] * pieces
    return bounds.bound(y, length + ROUNDINGS[_tile(taps)[1]], dtype).reshape(p.y_shape)


def backward_input(dy, weight, bias, p, dtype):
    """|error| of dx, in its shape (or of the y of a transposed convolution, bias added)."""
    if p.padding_mode != "zeros":
        raise NotImplementedError(f"{p.name}: no bound for Winograd's algorithm is known here")
    return np.max([_backward_input(dy, weight, bias, p, dtype, axis) for axis in _axes(p)], axis=0)


def _backward_input(dy, weight, bias, p, dtype, axis):
    dy = np.abs(dy).reshape(p.N, p.groups, p.K // p.groups, *p.out)
    w = np.abs(weight).reshape(p.groups, p.K // p.groups, p.C // p.groups, *p.kernel).swapaxes(1, 2)
    dx = np.zeros((p.N, p.groups, p.C // p.groups, *p.size))
    most = 0
    for first in np.ndindex(*(min(stride, size) for stride, size in zip(p.stride, p.size))):
        # positions first, first + stride, ...: those taps that meet them, the one that reaches lowest first
        taps, offsets, out = [], [], []
        for a in range(3):
            of = (first[a] + p.pad_low[a]) % p.stride[a]
            begin = (first[a] + p.pad_low[a] - of) // p.stride[a]
            met = [t for t in reversed(range(p.kernel[a])) if t * p.dilation[a] % p.stride[a] == of]
            taps.append(met)
            offsets.append(np.array([begin - t * p.dilation[a] // p.stride[a] for t in met], dtype=int))
            out.append(-(-(p.size[a] - first[a]) // p.stride[a]))
        part = dx[:, :, :, first[0] :: p.stride[0], first[1] :: p.stride[1], first[2] :: p.stride[2]]
        if not all(taps):
            continue
        phase = w[:, :, :, taps[0]][:, :, :, :, taps[1]][:, :, :, :, :, taps[2]]
        phase = np.moveaxis(phase, 3 + axis, 5)[..., None, :]
        place = lambda i, a: _source(i, p.out[a], "zeros")  # noqa: E731
        tiles = _tiles(lambda i, piece: place(i + offsets[axis][0], axis), out[axis], 1, len(taps[axis]))  # noqa: B023
        others = [place(np.arange(out[a])[:, None] + offsets[a], a) for a in range(3) if a != axis]
        part[...] = _magnitude(dy, phase, axis, tiles, others, out, len(taps[axis]))
        most = max(most, p.K // p.groups * math.prod(map(len, taps)) // len(taps[axis]) + ROUNDINGS[_tile(len(taps[axis]))[1]])
    if bias is not None:
        dx = dx + np.abs(bias).reshape(1, p.groups, -1, 1, 1, 1)
    return bounds.bound(dx, most, dtype).reshape(p.x_shape)
