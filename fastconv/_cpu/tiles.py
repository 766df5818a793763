"""Winograd's tiles of a map (native/winograd.h): how many there are along each axis, whole ones and short ones."""

import itertools
import math
from functools import lru_cache

from .views import VECTOR, phase_taps

TILES = {"winograd8": 8, "winograd": 6}
"""Points of Winograd's tiles along an axis. More of them save more multiplications, and amplify rounding
errors more."""

COLUMNS = 32  # a vector of columns of a row of tiles is transformed, in vectors multiplied
LINE = 26  # a line of a source or a result is read or written a second time, since rows fall into pieces
BLOCK = 100  # so many columns of as many channels as a vector has lanes are turned
WORTH = 0.98  # of the time, from which on short tiles are taken


def maps_of(problem, direction):
    """Outputs (down, across) of a map that is tiled for itself: a sample's, a phase's of dx, or a phase's of a
    dilation."""
    found = []
    for axis in (1, 2):
        out, step = problem.out[axis], problem.dilation[axis]
        if direction == "backward_input":
            stride, low = problem.stride[axis], problem.pad_low[axis]
            out = (problem.size[axis] - 1 + low) // stride - low // stride + 1
        found.append(-(-out // step))
    return found


def tiles_of(problem, direction, tile):
    """(down, across): tiles of so many points an axis on a sample's map, or on that of a phase of dx; each
    phase of a dilation is tiled for itself."""
    maps, taps = maps_of(problem, direction), phase_taps(problem)[1:]
    return [step * -(-out // (tile + 1 - r)) for out, r, step in zip(maps, taps, problem.dilation[1:])]


def points_of(problem, direction, tile, samples):
    """((points, first, end), ...): kinds of points of so many samples' tiles, and which tiles need them, of the
    numbers that native/winograd.h gives them."""
    counts, short = tiles_of(problem, direction, tile), short_of(problem, direction, tile)
    steps = problem.dilation[1:]
    down, across = (count // step - few for count, step, few in zip(counts, steps, short))  # whole ones of a map
    classes = down * short[1], down * across, short[0] * across, short[0] * short[1]
    a, b, c, d = (samples * math.prod(steps) * end for end in itertools.accumulate(classes))
    return ((tile - 1) ** 2, 0, d), (tile - 1, 0, b), (tile - 1, a, c), (1, a, b)


def most_short(problem, direction, tile):
    """(down, across): how many of a map's tiles can be short, which takes the point at infinity from them
    (native/winograd.h)."""
    found = []
    for out, r in zip(maps_of(problem, direction), phase_taps(problem)[1:]):
        outputs = tile + 1 - r
        count = -(-out // outputs)
        found.append(min(count, count * outputs - out))
    return tuple(found)


@lru_cache(maxsize=4096)
def short_of(problem, direction, tile):
    """(down, across): how many of a map's tiles are short: as many as can be along an axis, or none where the
    pieces into which rows fall cost more.

    It decides what is rounded where, and so must not depend on the batch.
    """
    whole, most = (0, 0), most_short(problem, direction, tile)
    found = {short: _rough(problem, direction, tile, short) for short in (whole, (most[0], 0), (0, most[1]), most)}
    best = min(found, key=found.get)
    return best if found[best] < WORTH * found[whole] else whole


def _rough(problem, direction, tile, short):
    """About what a sample's map costs, in vectors multiplied, as far as it depends on the tiles that are short."""
    maps, outputs = maps_of(problem, direction), tile + 1 - phase_taps(problem)[1]
    counts, lanes = [-(-out // outputs) for out in maps], VECTOR // problem.dtype.itemsize
    source, results = problem.C // problem.groups * math.prod(problem.stride), problem.K // problem.groups
    if direction == "backward_input":
        source, results = results, source
    # (tiles, outputs of one) of whole tiles and of short ones, down and across
    down, across = (
        [(n, m) for n, m in ((count - few, outputs), (few, outputs - 1)) if n] for count, few in zip(counts, short)
    )
    points = math.prod(tile * count - few for count, few in zip(counts, short))
    vectors = sum(-(-((n - 1) * m + tile) // lanes) for n, m in across)  # of columns that a row of tiles reads
    if direction == "backward_weight":  # channels are lanes
        rows = sum(n * m + tile - m for n, m in down)
        taken = points * source * results / lanes + rows * vectors * BLOCK * (source + results) / lanes
    else:
        taken = source * (points * results / lanes + counts[0] * vectors * COLUMNS)
    return taken + (source + results) * _lines(maps, across, problem.dtype.itemsize) * LINE


def _lines(maps, across, itemsize):
    """Lines of memory in which the pieces of a map lie: of some outputs across each, of all rows."""
    plane = math.prod(maps) * itemsize / VECTOR + 1  # narrow rows share them
    return sum(min(plane, maps[0] * ((n * m - 1) * itemsize / VECTOR + 1)) for n, m in across)
