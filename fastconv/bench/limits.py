"""The best time attainable: what no kernel of this package could beat here. A model, measured ceilings.

A call takes at least as long as the longest of three: its arithmetic at the measured rate of multiply-adds
(products of Winograd's tiles at that of the register tile, which multiplies them), the bytes of its arguments
and results at the measured rate of copying arrays of that size, and the shortest call. The arithmetic is the
least of what the families of algorithms need that fastconv has and its error bound admits: the direct sum,
and in float32 Winograd with tiles of 6 or 8 points an axis, or along one axis only. So this is a bound for
these algorithms, not for all that may be found; and nothing reaches it quite, since operands must also be
loaded.

Everything is counted in multiply-adds on single elements: a kernel fills its vectors at best, over whatever
axis. An addition or multiplication alone counts as one, since it takes an instruction all the same.
"""

import math

from .._cpu import one_axis
from .._cpu.algorithms import TABLES
from .._cpu.one_axis import line_axis, line_points
from .._cpu.tiles import TILES, most_short, tiles_of
from .._cpu.views import phase_taps

TABLE = {
    "forward": "conv",
    "backward_input": "conv_backward_input",
    "backward_weight": "conv_backward_weight",
}
TURNED = {"forward": "backward_input", "backward_input": "forward", "backward_weight": "backward_weight"}


def limit(result, ceiling):
    """(seconds, what takes them), or None where it is not known.

    What takes them: "direct sum", "Winograd F(4,3)" (outputs and taps of a tile along an axis), "memory" or
    "call". result: one of a report's, with what `least` tells; ceiling: an entry of its "ceilings", or None.
    """
    if not ceiling or "copies" not in ceiling or "least_flops" not in result:
        return None
    memory = result["bytes"] / (1e9 * copy_rate(ceiling["copies"], result["bytes"]))
    tile = result.get("least_tile_flops", 0)
    arithmetic = (result["least_flops"] - tile) / (1e9 * ceiling["fma_gflops"])
    arithmetic += tile and tile / (1e9 * ceiling["tile_gflops"])
    return max((arithmetic, result["least_by"]), (memory, "memory"), (ceiling["call_seconds"], "call"))


def least(problem, direction):
    """{"least_flops": two for every multiply-add of the family that needs fewest, "least_tile_flops": those
    of them that the register tile does, "least_by": that family}.

    {} for what has no model: whole networks.
    """
    if problem.family == "network":
        return {}
    count, products, family = multiply_adds(problem, direction)
    return {"least_flops": 2 * count, "least_tile_flops": 2 * products, "least_by": family}


def copy_rate(copies, traffic):
    """GB/s at which so many bytes can move: the best of arrays that are no smaller, or the next smaller size.

    copies: [bytes read and written together, GB/s] of every size. What is measured between two sizes would
    lie between; the smaller one's rate is the one that bounds it.
    """
    below = max((size for size, _ in copies if size <= traffic), default=0)
    return max(rate for size, rate in copies if size >= below)


def multiply_adds(problem, direction):
    """(count, tile's, family): the fewest that any family needs, and how many of them the register tile does;
    of other operations than sums of products 0."""
    if problem.family != "conv":
        return problem.flops(direction) // 2, 0, "direct sum"
    p, direction = problem.problem, TURNED[direction] if problem.transposed else direction
    found = [(direct(p), 0, "direct sum")]
    for algorithm in TABLES[TABLE[direction]]:
        if p.dtype.itemsize == 4 and algorithm.accepts(p) is None:
            for products, transforms, family in _winograd(algorithm.name, p, direction):
                found.append((products + transforms, products * (algorithm.name in TILES), family))
    return min(found)


def _winograd(name, p, direction):
    """(products, transforms, family) of each way in which an algorithm of this name could compute it."""
    if name in TILES:
        points, taps = TILES[name], phase_taps(p)[1]
        yield *winograd_count(p, direction, points), f"Winograd F({points + 1 - taps},{taps})"
    elif name == "winograd1d" and direction == "backward_weight":
        points, taps = line_points(p), phase_taps(p)[line_axis(p)]
        yield *line_count(p), f"Winograd F({points + 1 - taps},{taps}) along one axis"
    elif name == "winograd1d":
        for axis in one_axis.axes_of(p, direction):
            yield one_axis_count(p, direction, axis)


# -- the families; p: a ConvProblem --------------------------------------------------------------------------


def direct(p):
    """Products of the sum itself. Those with zeros of the padding are left out: a kernel might skip them."""
    return p.N * p.K * p.C // p.groups * math.prod(_meetings(p, axis) for axis in range(3))


def _meetings(p, axis):
    """Pairs of an output and a tap along an axis that meet a value of x."""
    if p.padding_mode != "zeros":
        return p.out[axis] * p.kernel[axis]
    count, size, stride = 0, p.size[axis], p.stride[axis]
    for tap in range(p.kernel[axis]):
        first = tap * p.dilation[axis] - p.pad_low[axis]  # of x, for output 0
        low, high = max(0, -(first // stride)), min(p.out[axis], -(-(size - first) // stride))
        count += max(0, high - low)
    return count


def winograd_count(p, direction, points):
    """(products, transforms): multiply-adds of Winograd with so many points a tile and axis.

    A stride makes as many times the channels, one for each phase; a dilation makes maps of their own of the
    phases of the outputs. Tiles that hang over the end of a map leave out the point at infinity, one output for
    each of them along each axis. Rows that two tiles share are transformed once.
    """
    taps, phases = phase_taps(p)[1], math.prod(p.stride)
    m, maps = points + 1 - taps, p.N * math.prod(p.dilation)
    down, across = (tiles // step for tiles, step in zip(tiles_of(p, direction, points), p.dilation[1:]))
    tiles = maps * down * across
    short = most_short(p, direction, points)
    multiplied = maps * math.prod(points * count - few for count, few in zip((down, across), short))
    channels, filters = p.C * phases, p.K
    pairs = channels * filters // p.groups
    source, results = (filters, channels) if direction == "backward_input" else (channels, filters)
    # along rows: m new ones a tile and those that only the last tile of a map reads; then along columns
    rows = maps * (down * m + taps - 1) * across
    products, transforms = multiplied * pairs, source * (rows + tiles * points) * to_points(points)
    if direction == "backward_weight":
        transforms += filters * tiles * (m + points) * outputs_to_points(points, m)
        return products, transforms + pairs * (points + taps) * points_to_taps(points, taps)
    transforms += results * tiles * (points + m) * to_outputs(points, m)
    return products, transforms + pairs * (taps + points) * taps_to_points(points, taps)


def line_count(p):
    """The same of the gradient of the weights by Winograd along one axis, other taps directly."""
    along = line_axis(p)
    taps, points, phases = phase_taps(p)[along], line_points(p), min(p.stride[along], p.kernel[along])
    m, others = points + 1 - taps, (0, 3 - along)
    tiles, pairs = p.N * -(-p.out[along] // m), p.C * p.K // p.groups * phases
    products = tiles * points * pairs * math.prod(_meetings(p, axis) for axis in others)
    # lines of x that are read at all, each transformed once
    lines = math.prod(min(p.size[axis], p.out[axis] * p.kernel[axis]) for axis in others)
    transforms = p.C * phases * tiles * lines * to_points(points)
    transforms += p.K * tiles * math.prod(p.out[axis] for axis in others) * outputs_to_points(points, m)
    return products, transforms + pairs * p.taps // p.kernel[along] * points_to_taps(points, taps)


def one_axis_count(p, direction, axis):
    """(products, transforms, family) of Winograd's algorithm along one axis, forward or for dx.

    The sum over the other taps is direct. A stride along the axis makes phases: of the inputs, or of dx.
    Rows of inputs are transformed once for all that they serve.
    """
    taps, pairs = max(2, phase_taps(p)[axis]), p.C * p.K // p.groups
    points = one_axis.points(taps)
    m, phases = points + 1 - taps, min(p.stride[axis], p.kernel[axis])
    if direction == "backward_input":
        channels, filters, source, out = p.K, p.C, p.out, p.size
        tiles = transformed = p.stride[axis] * -(-out[axis] // (m * p.stride[axis]))
        products = tiles
    else:
        channels, filters, source, out = p.C, p.K, p.size, p.out
        tiles = -(-out[axis] // m)
        products = transformed = tiles * phases
    others = [i for i in range(3) if i != axis]
    products *= p.N * points * pairs * math.prod(_meetings(p, i) for i in others)
    transforms = p.N * channels * transformed * math.prod(source[i] for i in others) * to_points(points)
    transforms += p.N * filters * tiles * math.prod(out[i] for i in others) * to_outputs(points, m)
    transforms += pairs * phases * math.prod(p.kernel[i] for i in others) * taps_to_points(points, taps)
    return products, transforms, f"Winograd F({m},{taps}) along one axis"


# One-dimensional transforms, of points 0, pairs +-a, and infinity: what is even and what is odd in a pair is
# computed once and then added and subtracted. The numbers of multiply-adds:


def _pairs(points):
    return (points - 2) // 2


def to_points(points):
    """B^T d: even and odd parts of each pair without leading factors, sum and difference; 0, infinity."""
    pairs = _pairs(points)
    return pairs * (2 * (pairs - 1) + 2) + 2 * pairs


def to_outputs(points, m):
    """A^T m: sum and difference of each pair; the first output; others, of all pairs each; infinity."""
    pairs = _pairs(points)
    return 2 * pairs + pairs + (m - 1) * pairs + 1


def taps_to_points(points, taps):
    """G g: even and odd parts of each pair with its factor, their sum and difference; 0."""
    return _pairs(points) * (taps + 2) + 1


def outputs_to_points(points, m):
    """A y, the adjoint of `to_outputs`: even and odd parts without leading factors, sum and difference."""
    return _pairs(points) * m


def points_to_taps(points, taps):
    """G^T u, the adjoint of `taps_to_points`: sum and difference of each pair, then the taps; 0, infinity."""
    pairs = _pairs(points)
    return 2 * pairs + taps * pairs + 2
