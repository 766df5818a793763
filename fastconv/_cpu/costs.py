"""What a convolution costs by each algorithm, estimated: the model by which "auto" chooses.

The cost is a sum of a few terms: how often a kernel takes a step of some kind (multiplies a vector, packs
one, transforms one, stores one, ...), which is counted here, times what a step of that kind costs, which
was fitted to measured times of random shapes (step_costs.py). The choice must not depend on the batch, the
threads or the instruction set, for it decides the order of sums: a call is taken to have one thread, the
longest vectors, and as many samples as `BATCHES` says, of whose costs the geometric mean counts.
"""

import math

from . import one_axis
from .one_axis import line_axis, line_points
from .step_costs import COSTS
from .tiles import TILES, points_of, short_of, tiles_of
from .views import TURN, VECTOR, phase_taps, pointwise

BATCHES = 1, 8  # samples over which what a call does once is spread
PANEL = 8  # rows of a register tile
EVERY = 2  # pixels may lie so far apart in a source that is read in place (correlate.pxi)
INNER_PANEL = 4  # rows of the tile of pixels that direct.h sums for the gradient of the weights
PIECE = 256  # products of a sum that are added up in registers (correlate.pxi)
WHOLE = 384 * 1024  # bytes of the pixels of a sum that is added up in one piece where they are not staged
TURNED = 8  # turning a vector for the gradient of the weights, in vectors multiplied (outer.pxi): of strips,
TURNED_PATCHES = 16  # of patches
SUMMED = 512  # pixels of it that are, unless a block of them takes more than
OUTER_BLOCK = 4 * 1024 * 1024  # bytes
BAND = 32 * 1024  # bytes of strips that are staged together (direct.pxi), of eight rows at least
CACHE = 16 * 1024 * 1024  # bytes of x and y from which on they come from memory and go there
LINE_VECTORS = 64  # of rows of points that are added up in registers (winograd1d_weight.pxi)
LINE_BYTES = 2 * 1024 * 1024  # of those of x
LINE_SUMS = 16 * 1024 * 1024  # bytes of their partial sums
ROLL_TAPS = 7  # rows of taps that depthwise.h keeps in registers
SLOPE_TAPS, SLOPES = 7, 21  # of a row, and in all, whose sums depthwise.h keeps in registers
SHEAF_PIXELS = 1024  # of planes that are taken as lanes
PART_WORK = 50000  # vectors multiplied that a partial sum is worth
TURN_DY = 30  # the same for a vector of dy (direct.pxi)


def estimate(direction, algorithm, problem, prices=COSTS):
    """The cost of a sample, in units that only compare: about nanoseconds of the processor of the fit."""
    paid = prices[direction][algorithm]
    found = (cost(paid, count(direction, algorithm, problem, samples)) / samples for samples in BATCHES)
    return math.prod(found) ** (1 / len(BATCHES))


def cost(prices, steps):
    """The sum of the steps' prices."""
    return sum(price * steps[step] for step, price in prices.items())


def count(direction, algorithm, problem, samples):
    """{kind of step: how many} of a call with so many samples."""
    p = problem
    x, y = (
        samples * channels * math.prod(size) * p.dtype.itemsize for channels, size in ((p.C, p.size), (p.K, p.out))
    )
    read, written = {"forward": (x, y), "backward_input": (y, x), "backward_weight": (x + y, 0)}[direction]
    far = (read + written > CACHE) / VECTOR
    steps = COUNTS[algorithm](p, direction, samples)
    return {**steps, "far": far * read, "far written": far * written, "call": 1}


def _ceil(a, b):
    return -(-a // b)


class _Sum:
    """A sum over channels and taps: forward, or the gradient of the input, one for each phase of the stride.

    rows, channels: of the result and the source, in a group; reduction: products of an output, over all
    phases; lines, width: outputs of a phase of a sample; source: (lines, width) of a channel; split: pieces
    into which a stride cuts its rows; strewn: distance of outputs; in_place: the source is not staged;
    read: by how many phases it is (others have no taps).
    """

    def __init__(self, problem, direction):
        p = problem
        self.lanes, self.groups = VECTOR // p.dtype.itemsize, p.groups
        if direction == "forward":
            self.rows, self.channels, self.phases, self.strewn, self.split = (
                p.K // p.groups,
                p.C // p.groups,
                1,
                1,
                p.stride[2],
            )
            source, kernel, out = p.size, p.kernel, p.out
            self.in_place = p.stride[2] <= (EVERY if p.taps == 1 else 1) and not max(p.pad_low + p.pad_high)
            self.read = 1
        else:
            steps = [min(stride, size) for stride, size in zip(p.stride, p.size)]
            self.rows, self.channels, self.phases, self.strewn, self.split = (
                p.C // p.groups,
                p.K // p.groups,
                math.prod(steps),
                p.stride[2],
                1,
            )
            source, kernel, out = p.out, phase_taps(p), [size / step for size, step in zip(p.size, steps)]
            self.in_place = p.taps == 1 and self.phases == 1
            self.read = math.prod(map(min, steps, p.kernel))
        self.reduction = max(1, self.channels * p.taps)
        self.reach = [(taps - 1) * dilation for taps, dilation in zip(kernel, p.dilation)]
        self.lines, self.width = out[0] * out[1], out[2]
        read = [min(size, count * taps) for size, count, taps in zip(source, out, kernel)]
        self.source = round(read[0] * read[1]), source[2]


def _packed(problem, direction, samples):
    """implicit_gemm: patches are packed, then panels of filters pass over them."""
    if direction == "backward_weight":
        return _packed_weight(problem, samples)
    single = pointwise(problem) if direction == "backward_input" else None
    s = _Sum(problem, direction) if single is None else _Sum(single, "forward")
    if problem.taps == 1:  # the one phase that has it writes what lies between its outputs, too
        s.phases = s.strewn = s.read = 1
        reached = direction != "forward" or problem.stride[2] <= EVERY
        s.in_place = reached and not max(problem.pad_low + problem.pad_high)
    joined = problem.taps == 1  # rows lie one behind the other, or are staged so
    fresh = joined and s.in_place  # packed while the first panel multiplies
    rows = s.lines if joined else s.source[0]  # that are staged
    piece = WHOLE // (3 * VECTOR) if fresh else s.phases * PIECE
    vectors = _ceil(samples * s.lines * s.width, s.lanes)  # they run over the ends of rows and of samples
    depth, results = s.groups * s.reduction, s.groups * s.rows * s.phases
    staged = 0 if s.in_place else samples * s.groups * s.channels * s.read
    return {
        "multiply": depth * s.rows * vectors,
        "panel": depth * _ceil(s.rows, PANEL) * vectors,
        "pack": (not fresh) * depth * vectors,
        "pack line": (not joined) * depth * samples * s.lines,
        "stage phase": staged * (s.phases > 1) * s.source[0] * (s.source[1] / s.lanes + 1),
        "pack phase": depth * vectors * (s.phases > 1),
        "stage": staged * rows * (s.source[1] / s.lanes + 1),
        "stage split": staged * rows * s.source[1] * (s.split > 1),
        "store": results * vectors * _ceil(s.reduction, piece),
        "store line": results * samples * s.lines,
        "strew": results * samples * s.lines * s.width * (s.strewn > 1),
        "strew line": results * samples * s.lines * (s.strewn > 1),
        "weight": (not joined) * depth * s.rows,  # else read in place
        "phase": s.phases - 1,
        "group": s.groups,
    }


def _packed_weight(p, samples):
    """One operand is turned round so that its channels are lanes, x for all taps or for each; the other is
    read in place (outer.pxi)."""
    lanes, rows, channels = VECTOR // p.dtype.itemsize, p.K // p.groups, p.C // p.groups
    pixels, lines, columns = math.prod(p.out), p.out[0] * p.out[1], channels * p.taps
    vectors = _ceil(columns, lanes)
    for_all = _ceil(channels, lanes) * p.taps  # vectors of columns where strips are turned for all taps
    by_taps = p.taps > 1 and for_all * (rows + TURNED) < vectors * (rows + TURNED_PATCHES)
    every = EVERY if p.taps == 1 else 1  # how far pixels may lie apart that are not staged
    if by_taps:
        vectors = for_all
    elif (
        p.taps == 1 and 4 * pixels * (channels - rows) > rows * channels
    ):  # dy is turned, which has fewer channels
        every = 1
        rows, columns, vectors = channels, rows, _ceil(rows, lanes)
    passes, staged = (
        samples * p.groups,
        samples * p.C * (by_taps or p.stride[2] > every or max(p.pad_low + p.pad_high) > 0),
    )
    bytes_of_pixel = (_ceil(rows, lanes) + _ceil(channels if by_taps else columns, lanes)) * VECTOR
    block = max(SUMMED // 4, min(SUMMED, OUTER_BLOCK // bytes_of_pixel))
    panels, parts, batch = (
        _ceil(rows, PANEL),
        1,
        min(p.groups, max(1, OUTER_BLOCK // (bytes_of_pixel * block))),
    )
    while parts < 8 and parts * batch * panels * _ceil(vectors, 3) < 32:
        parts *= 2
    return {
        "multiply": passes * rows * vectors * pixels,
        "panel": passes * panels * vectors * pixels,
        "line": passes * panels * vectors * lines,
        "turn": by_taps * passes * _ceil(channels, lanes) * math.prod(p.size),
        "turn patches": (not by_taps) * passes * _ceil(columns, lanes) * pixels,
        "pack line": (not by_taps) * passes * columns * lines,
        "stage": staged * p.size[0] * p.size[1] * (p.size[2] / lanes + 1),
        "stage split": staged * math.prod(p.size) * (p.stride[2] > 1),
        "update": p.groups * rows * vectors * _ceil(samples * pixels, block),
        "weight": p.groups * rows * vectors * parts,
        "group": p.groups,
    }


def _direct(problem, direction, samples):
    """direct: strips of rows are staged, and vectors of pixels or of filters multiplied as they lie."""
    if direction == "backward_weight":
        return _direct_weight(problem, samples)
    s = _Sum(problem, direction)
    aligned = s.lines * _ceil(s.width, s.lanes)  # vectors of outputs that end with each row
    flat = (
        s.lines * (s.split * s.width + s.reach[2]) / s.lanes
    )  # those that run over the ends of rows and of what taps reach
    brushes, brush_width = (
        _ceil(s.rows, s.lanes),
        max(s.width, 4 * _ceil(s.width, 16)),
    )  # fewer pixels than four wait for one another
    turned = brushes * s.lines * s.width * (1 + TURN * s.phases / s.reduction)
    # the kernel's own choice: one or two filters pass over lines, filters are lanes, or pixels are
    by_lines = s.rows <= 2 and s.lines > 2
    by_filters = not by_lines and s.strewn == 1 and turned < s.rows * min(1.15 * flat, aligned)
    by_pixels = not by_lines and not by_filters
    is_flat = by_pixels and 1.15 * flat < aligned
    vectors = flat if is_flat else aligned
    depth, results = samples * s.groups * s.reduction, samples * s.groups * s.phases
    strips = samples * s.groups * s.channels * s.read
    staged = strips * (s.source[0] + s.reach[1])
    return {
        "line": by_lines * depth * s.rows * aligned,
        "brush": by_filters * depth * brushes * s.lines * brush_width,
        "turn": by_filters * results * brushes * s.lines * s.width,
        "multiply": by_pixels * depth * s.rows * vectors,
        "panel": by_pixels * depth * _ceil(s.rows, PANEL) * vectors,
        "store": (not by_filters) * results * s.rows * vectors,
        "put": (is_flat or (s.width < s.lanes and not by_filters)) * results * s.rows * s.lines,
        "stage phase": staged * (s.phases > 1) * (s.source[1] / s.lanes + 1),
        "stage": staged * (s.source[1] / s.lanes + 1),
        "stage split": staged * s.source[1] * (s.split > 1),
        "strew": results * s.rows * s.lines * s.width * (s.strewn > 2),
        "strew 2": results * s.rows * s.lines * s.width * (s.strewn == 2),
        "weight": s.groups * s.reduction * s.rows,
        "phase": s.phases - 1,
        "group": samples * s.groups,
    }


def _direct_weight(p, samples):
    lanes, rows, columns = VECTOR // p.dtype.itemsize, p.K // p.groups, p.C // p.groups * p.taps
    lines, width, split, reach = p.out[0] * p.out[1], p.out[2], p.stride[2], (p.kernel[2] - 1) * p.dilation[2]
    vectors, brushes = (
        min(lines * _ceil(width, lanes), lines * (split * width + reach) / lanes),
        _ceil(rows, lanes),
    )
    by_filters = 4 * brushes * lines * width * (columns + TURN_DY) < 5 * rows * vectors * columns
    strip = p.C // p.groups * min(p.stride[1], p.kernel[1]) * (split * width + reach) * p.dtype.itemsize
    bands = p.out[0] * _ceil(p.out[1], max(PANEL, BAND // max(1, strip)))
    passes, staged = samples * p.groups, samples * p.C * p.size[0] * p.size[1]
    work = passes * rows * columns * lines * width / lanes
    sums = p.groups * _fewer(min(8, 1 << (15 // p.groups).bit_length()), samples * bands, work)
    return {
        "brush": by_filters * passes * brushes * columns * lines * width,
        "turn": by_filters * passes * brushes * lines * width,
        "multiply": (not by_filters) * passes * rows * columns * vectors,
        "panel": (not by_filters) * passes * _ceil(rows, INNER_PANEL) * columns * vectors,
        "update": (not by_filters) * passes * rows * columns * bands,
        "stage": staged * (p.size[2] / lanes + 1),
        "stage split": staged * p.size[2] * (split > 1),
        "stage rows": passes * rows * lines * (width / lanes + 1),
        "fold": sums * rows * columns / lanes,
    }


def _fewer(parts, pieces, work):
    """Partial sums of so many vectors multiplied, of at most `parts` (direct.pxi)."""
    while parts > 1 and (parts > max(pieces, 2) or parts * PART_WORK > work):
        parts //= 2
    return parts


def _lines(p, direction, samples):
    """winograd1d: tiles along one axis; rows of points are multiplied like the rows of the direct sum. Their
    lanes are neighbouring columns, or tiles where these lie along the width."""
    lanes, rows, channels, axis = VECTOR // p.dtype.itemsize, p.K // p.groups, p.C // p.groups, line_axis(p)
    points, phases, taps = line_points(p), min(p.stride[axis], p.kernel[axis]), phase_taps(p)[axis]
    tiles, down = _ceil(p.out[axis], points + 1 - taps), axis == 1
    # rows of points of x for one of dy
    sources = channels * p.kernel[0] * phases * (1 if down else p.kernel[1])
    columns = sources * (p.kernel[2] if down else 1)
    lines, width = (p.out[0] * tiles, p.out[2]) if down else (p.out[0] * p.out[1], tiles)
    row = p.stride[2] * width + (p.kernel[2] - 1) * p.dilation[2] if down else tiles
    across = min(_ceil(width, lanes), row / lanes)
    most = max(1, min(LINE_VECTORS / across, LINE_BYTES / (sources * points * row * p.dtype.itemsize)))
    passes = samples * p.groups
    sums = p.groups * points * rows * columns
    parts, blocks = 1, _ceil(samples * lines, most)
    while parts < 8 and parts * p.groups < 16 and 2 * parts * sums * p.dtype.itemsize <= LINE_SUMS:
        parts *= 2
    parts = _fewer(parts, blocks, passes * points * rows * columns * lines * across)
    return {
        "multiply": passes * points * rows * columns * lines * across,
        "panel": passes * points * _ceil(rows, INNER_PANEL) * columns * lines * across,
        "update": sums * max(parts, blocks),
        "output": down * passes * rows * points * lines * _ceil(width, lanes),
        "input": down * passes * sources * points * lines * (row / lanes + 1),
        "output across": (not down) * passes * rows * points * lines * _ceil(width, lanes),
        "input across": (not down) * passes * sources * points * lines * _ceil(width, lanes),
        "stage": samples * p.C * p.size[0] * p.size[1] * (p.size[2] / lanes + 1),
        "stage split": samples * p.C * math.prod(p.size) * (p.stride[2] > 1),
        "weight": sums * parts,
    }


def _winograd(tile):
    """winograd: tiles of so many points an axis are transformed, multiplied point by point as matrices, and
    transformed back."""

    def counts(p, direction, samples):
        lanes, phases, taps = VECTOR // p.dtype.itemsize, math.prod(p.stride), phase_taps(p)[1]
        source, results = p.C // p.groups * phases, p.K // p.groups
        if direction == "backward_input":
            source, results = results, source
        down, across = tiles_of(p, direction, tile)
        tiles = samples * down * across
        vectors = _ceil(tiles, lanes)
        kinds = points_of(p, direction, tile, samples)
        # vectors multiplied at all points, and vectors loaded for a panel of rows to be multiplied by
        if (
            direction == "backward_weight"
        ):  # channels or filters are lanes, whichever leaves fewer of them empty
            rows, columns = (
                (source, results)
                if source * _ceil(results, lanes) < results * _ceil(source, lanes)
                else (results, source)
            )
            taken = _ceil(columns, lanes) * sum(points * (end - first) for points, first, end in kinds)
            products, loaded = rows * taken, _ceil(rows, PANEL) * taken
        elif tiles <= PANEL:  # filters are lanes
            taken = source * _ceil(results, lanes)
            products = taken * sum(points * max(1, end - first) for points, first, end in kinds)
            loaded = taken * tile**2
        else:
            taken = source * sum(
                points * (_ceil(end, lanes) - first // lanes) for points, first, end in kinds if end > first
            )
            products, loaded = results * taken, _ceil(results, PANEL) * taken
        # of a tile; rows are taken apart into tiles, and joined, by other shuffles for each number of them
        outputs, short = tile + 1 - taps, short_of(p, direction, tile)[1]
        pieces = 1 + (0 < short < across // p.dilation[2])  # of a row: whole tiles, and short ones
        transforms = {f"{side} {m}": 0 for side in ("input", "output") for m in range(2, 7)}
        transforms |= {
            f"input {outputs}": p.groups * source * vectors,
            f"output {outputs}": p.groups * results * vectors,
        }
        return {
            "multiply": p.groups * products,
            "panel": p.groups * loaded,
            **transforms,
            "stage": p.groups * (phases > 1 or max(p.dilation) > 1) * source * tiles * tile**2,
            "line": p.groups * (source + results) * samples * down * pieces,
            "turn": (direction == "backward_weight")
            * p.groups
            * tile**2
            * (_ceil(source, lanes) + _ceil(results, lanes))
            * lanes
            * vectors,
            "weight": p.groups * source * results,
            "group": p.groups,
        }

    return counts


def _depthwise(p, direction, samples):
    """depthwise: one plane of the source under one filter after the other, or planes as lanes."""
    lanes, step, phases, out = VECTOR // p.dtype.itemsize, p.stride, (1, 1, 1), p.out
    if direction == "backward_input":
        step, phases, out = phases, step, p.size
    reach = [(taps - 1) * dilation for taps, dilation in zip(p.kernel, p.dilation)]
    rows = out[1] * _ceil(_ceil(out[2], phases[2]), lanes)  # vectors of outputs of a plane
    taps = p.taps / phases[1]
    rolls = max(p.stride) == 1 and p.dilation[1] == 1 and p.kernel[1] <= ROLL_TAPS
    # the kernel's own choice, in vectors multiplied for a plane
    pixels = (p.size[1] if direction == "backward_input" else p.size[1] + reach[1]) * (p.size[2] + reach[2])
    sheaves, turned = _ceil(p.K, lanes), p.size[1] * p.size[2] + out[1] * out[2]
    multiplied = out[1] * out[2] * taps / phases[2]
    as_lanes = pixels <= SHEAF_PIXELS and (multiplied + 10 * turned) * sheaves < p.K * (
        rows * (12 + taps * (1 if rolls else 4)) + 60
    )
    planes = samples * p.K * (not as_lanes)
    return {
        "sheaf": samples * as_lanes * sheaves * multiplied,
        "turn": samples * as_lanes * sheaves * turned,
        "roll": planes * rolls * rows * taps,
        "comb": planes * (not rolls) * rows * taps,
        "store": planes * rows,
        "plane": planes,
        **_slopes(p, direction, planes),
        "fold": (direction == "backward_weight") * planes * p.taps,
        "weight": p.K * p.taps,
    }


def _one_axis(p, direction, samples):
    """winograd1d: tiles along one axis, the sums of whose points stay in registers."""
    if direction == "backward_weight":
        return _lines(p, direction, samples)
    return one_axis.counts(p, direction, one_axis.axis_of(p, direction), samples)


def _slopes(p, direction, planes):
    """Of the gradient of the weights: rows of x pass under the sums of a few taps, which stay in registers."""
    if direction != "backward_weight":
        return {}
    rows, columns = p.kernel[1:]
    across = columns if p.stride[2] > 1 and p.dilation[2] > 1 else _ceil(columns, SLOPE_TAPS)
    down = _ceil(rows, max(1, min(SLOPE_TAPS, SLOPES // _ceil(columns, across))))
    passed = planes * p.size[1] * _ceil(p.out[2], VECTOR // p.dtype.itemsize)
    return {
        "slope row": passed * rows * across,
        "slope": passed * columns * down * p.stride[2],
    }


COUNTS = {name: _winograd(tile) for name, tile in TILES.items()} | {
    "winograd1d": _one_axis,
    "depthwise": _depthwise,
    "direct": _direct,
    "implicit_gemm": _packed,
}
