"""Programs of the fast kernels: a convolution or one of its gradients becomes layout passes, packed weights
and GEMM launches.

Buffers are named "x", "weight", "dy", "y", "dx", "dweight", "bias"; scratch has names of its own. All
strides are in elements, for (N, channel, D, H, W). A builder returns a `Program`, or raises `Refused` with
a reason; `select` says which builder suits a problem.
"""

import itertools
import math
from typing import NamedTuple

from . import geometry, maps
from .gen import gemm_f32, igemm_sm80, igemm_sm90, layout, wgrad_sm80, wgrad_sm90
from .gen.kernel import BYTES, MAXIMUM, ceil_div
from .program import Pointer, Program, Step

WALK = ("taps", "count", "stride", "origin", "step")  # what TMA kernels are told of every axis
CHUNK = 64 << 20  # bytes of images in another layout at a time: more than enough work to fill any device
SMS = 132  # multiprocessors of an H200: tiles are chosen so that there is work for all


class Refused(Exception):
    """The reason why a kernel cannot compute a problem."""


class View(NamedTuple):
    """An image stack in memory.

    Channels, strides in elements of (N, channel, D, H, W), spatial size, buffer.
    """

    pointer: Pointer
    channels: int
    strides: tuple
    size: tuple

    def moved(self, nbytes):
        """The same, so many bytes further on."""
        return self._replace(pointer=_ahead(self.pointer, nbytes))

    def group(self, g, groups, width):
        """The channels of one group of a grouped convolution; `width` bytes an element."""
        channels = self.channels // groups
        name, offset = self.pointer
        return self._replace(
            pointer=Pointer(name, offset + g * channels * self.strides[1] * width), channels=channels
        )


def contiguous(name, channels, size):
    """A View of a C-contiguous (N, channels, D, H, W) buffer."""
    d, h, w = size
    return View(Pointer(name), channels, (channels * d * h * w, d * h * w, h * w, w, 1), tuple(size))


def channels_last(name, channels, size, rounded=None):
    """A View of a contiguous (N, D, H, W, rounded) buffer."""
    (d, h, w), c = size, rounded or channels
    return View(Pointer(name), channels, (d * h * w * c, 1, h * w * c, w * c, c), tuple(size))


class Builder:
    """Steps and scratch of a program in the making."""

    def __init__(self):
        self.steps, self.sizes, self.at = [], {}, 0

    def scratch(self, name, nbytes):
        """A buffer; after `reuse` one that an earlier part of the program has done with."""
        if self.at == len(self.sizes):
            self.sizes[f"{name}{self.at}"] = 0
        name = list(self.sizes)[self.at]
        self.sizes[name] = max(self.sizes[name], -(-nbytes // 256) * 256)
        self.at += 1
        return Pointer(name)

    def reuse(self, mark):
        """From now on buffers are those that were asked for when `at` was `mark`, in the same order."""
        self.at = mark

    def launch(self, kernel, grid, *arguments):
        if not all(1 <= g for g in grid) or grid[0] > MAXIMUM or max((*grid[1:], 1)) > 65535:
            raise Refused(f"needs a grid of {grid}, more than the device has")
        if len(arguments) != len(kernel.parameters):
            raise TypeError(f"{kernel.name}: {len(arguments)} arguments, need {len(kernel.parameters)}")
        self.steps.append(Step(kernel, tuple(grid), arguments))

    def program(self):
        return Program(tuple(self.steps), tuple(self.sizes.items()))


def indexable(*counts):
    if max(counts) > MAXIMUM:
        raise Refused(f"needs arrays of at most {MAXIMUM} elements, got {max(counts)}")


def as_channels_last(build, view, images, dtype, whole=False):
    """The view itself if TMA can read it, else a copy by a layout pass; channels are rounded up to 16
    bytes.
    """
    width = BYTES[dtype]
    unit = 16 // width
    n, c, d, h, w = view.strides
    lone = [s for s, size in zip((n, d, h, w), (images, *view.size)) if size > 1]
    complete = not whole or view.channels % unit == 0
    if c == 1 and complete and all(s > 0 and s % unit == 0 for s in lone) and view.pointer.offset % 16 == 0:
        # strides of unit axes are free: give them values the TMA unit takes
        dense = unit * ceil_div(view.channels, unit)
        strides = [s if size > 1 else 0 for s, size in zip((n, d, h, w), (images, *view.size))]
        for i in (3, 2, 1, 0):
            size = (images, *view.size)
            strides[i] = strides[i] or (strides[i + 1] * size[i + 1] if i < 3 else dense)
        return view._replace(strides=(strides[0], 1, *strides[1:]))
    planes = math.prod(view.size)
    D, H, W = view.size
    flat = (W == 1 or w == 1) and (H == 1 or h == W) and (D == 1 or d == H * W)
    rounded = unit * ceil_div(view.channels, unit)
    total = images * planes * rounded
    indexable(
        total, sum(abs(s) * size for s, size in zip(view.strides, (images, view.channels, *view.size)))
    )
    out = build.scratch("last", total * width)
    copied = channels_last(out.name, view.channels, view.size, rounded)
    if not flat or n < 0 or c < 0:
        build.launch(
            layout.gather(width), (ceil_div(total, layout.THREADS),),
            view.pointer, out, total, view.channels, rounded, *view.size, 0, view.size[2], *view.strides,
        )  # fmt: skip
        return copied
    even = width == 2 and planes % 2 == n % 2 == c % 2 == 0 and view.pointer.offset % 4 == 0
    side = 32 if width == 4 else 64
    build.launch(
        layout.channels_last(dtype, even), (ceil_div(planes, side), ceil_div(rounded, side), images),
        view.pointer, out, view.channels, planes, rounded, n, c,
    )  # fmt: skip
    return copied


class Weight(NamedTuple):
    """How a kernel's rows and columns of group 0 lie in the weight: element strides, and from group to group.
    """

    pointer: Pointer
    rows: int
    columns: int
    s_row: int
    s_column: int
    kernel: tuple
    s_group: int = 0
    truncated: bool = False  # the tensor core may cut TF32 off itself, instead of a copy that is rounded

    def tap_strides(self):
        T, R, S = self.kernel
        return R * S, S, 1

    def as_it_lies(self, dtype, multiple):
        """Whether it is a matrix whose rows are read in place, whole multiples of so many columns."""
        copied = dtype in ("f16", "bf16", "copy32") or dtype == "tf32" and self.truncated
        lies = self.s_column == 1 and self.s_row == self.columns and self.columns % multiple == 0
        return copied and lies and self.kernel == (1, 1, 1) and self.pointer.offset % 16 == 0

    @property
    def turned(self):
        """The same numbers with the roles of rows and columns exchanged."""
        return self._replace(rows=self.columns, columns=self.rows, s_row=self.s_column, s_column=self.s_row)


def packed_weight(build, weight, axes, dtype, unit, multiple=None, groups=1):
    """Pointers to weight[group, row, tap, column] with columns rounded up to `unit`, and that number; two
    tensors for "f32". multiple: of columns that the kernel can read in place, `unit` if that is it.
    """
    if weight.as_it_lies(dtype, multiple or unit):
        return [weight.pointer], weight.columns
    rounded = unit * ceil_div(weight.columns, unit)
    taps = [max(1, a.taps) for a in axes]
    total = weight.rows * math.prod(taps) * rounded
    indexable(total * groups)
    width = BYTES.get(dtype, 4)
    outs = [build.scratch("packed", total * groups * width) for _ in range(2 if dtype == "f32" else 1)]
    strides = [a.tap_step * s for a, s in zip(axes, weight.tap_strides())]
    first = sum(a.tap_first * s for a, s in zip(axes, weight.tap_strides()))
    build.launch(
        layout.pack_weight(dtype), (ceil_div(total, layout.THREADS), groups), weight.pointer, *outs,
        weight.rows, weight.columns, rounded, *taps, weight.s_row, weight.s_column, *strides, first,
        weight.s_group,
    )  # fmt: skip
    return outs, rounded


def im2col_map(source, images, axes, dtype, pixels):
    """The `maps.Im2col` of a channels-last view for the axes of a sum (two axes when D is trivial)."""
    width = BYTES[dtype]
    fast = tuple(reversed(axes))
    spatial = tuple(reversed(source.strides[5 - len(axes) :]))
    return maps.Im2col(
        source.pointer, dtype, (source.channels, *(a.size for a in fast), images),
        tuple(s * width for s in (*spatial, source.strides[0])),
        tuple(a.origin for a in fast), tuple(a.upper for a in fast), tuple(a.stride for a in fast),
        pixels, igemm_sm90.tile_channels(dtype),
    )  # fmt: skip


def spatial_axes(axes):
    """Without D where it is trivial: the TMA unit reads planes with wider limits than volumes."""
    d = axes[0]
    trivial = (d.size, d.count, d.taps, d.origin, d.place_first) == (1, 1, 1, 0, 0)
    return axes[1:] if trivial else axes


def check_tma(image_map, axes):
    """Raises Refused unless the TMA unit can walk these axes."""
    if min(image_map.strides) <= 0 or image_map.channels < 1:
        raise Refused(f"needs positive strides, got {image_map.strides}")
    reason = image_map._replace(address=0).refused()
    if reason is None:
        limit = maps.OFFSETS[len(axes)]
        far = max((a.taps - 1) * a.step for a in axes)
        reason = (
            f"reaches {far} elements from its first tap, at most {limit} is possible" if far > limit else None
        )
    if reason is not None:
        raise Refused(reason)


class Sum(NamedTuple):
    """What forward and the gradient of the input have in common: y = sum over axes of source * weight, for
    each of `groups` of the channels of source and target.
    """

    phases: list  # of axes (D, H, W)
    images: int
    source: View
    target: View
    weight: Weight
    bias: Pointer | None
    activation: str | None
    bias_of: str = "channel"  # or "position"
    groups: int = 1

    def alone(self, width):
        """A Sum for every group; `width` bytes an element."""
        G, weight = self.groups, self.weight
        for g in range(G):
            yield self._replace(
                source=self.source.group(g, G, width), target=self.target.group(g, G, width), groups=1,
                weight=weight._replace(pointer=_ahead(weight.pointer, g * weight.s_group * width)),
                bias=self.bias and _ahead(self.bias, g * weight.rows * width),
            )  # fmt: skip


def _ahead(pointer, nbytes):
    return pointer._replace(offset=pointer.offset + nbytes)


def forward_sums(problem, x, y, width):
    """The `Sum` of the forward convolution; x and y are Views."""
    G, taps = problem.groups, problem.taps
    rows, columns = problem.K // G, problem.C // G
    strides = columns * taps, taps
    weight = Weight(Pointer("weight"), rows, columns, *strides, problem.kernel, rows * columns * taps)
    bias = Pointer("bias") if problem.bias else None
    phases = [geometry.forward(problem)]
    yield Sum(phases, problem.N, x, y, weight, bias, problem.activation, groups=G)


def backward_input_sums(problem, dy, dx, width, bias=False):
    """The `Sum` of the gradient of the input."""
    G, taps = problem.groups, problem.taps
    rows, columns = problem.C // G, problem.K // G
    strides = taps, rows * taps
    weight = Weight(Pointer("weight"), rows, columns, *strides, problem.kernel, rows * columns * taps)
    bias = Pointer("bias") if bias else None
    yield Sum(geometry.backward_input(problem), problem.N, dy, dx, weight, bias, None, groups=G)


def in_chunks(build, sums, dtype, copied):
    """The sums over so many images at a time that a copy of these in another layout stays below `CHUNK`
    bytes, whatever N is; a chunk uses the scratch of the one before it. Every element is the same sum as
    before.

    copied(sum): whether its images are copied.
    """
    width = BYTES[dtype]
    for s in sums:
        if not s.images or not copied(s):
            yield s
            continue
        w = s.phases[0][2]
        padded = math.prod(s.source.size[:2]) * (s.source.size[2] + 2 * abs(w.origin) + w.taps)
        image = padded * (16 // width) * ceil_div(s.source.channels, 16 // width) * width
        most, mark = max(1, CHUNK // max(1, image)), build.at
        for start in range(0, s.images, most):
            build.reuse(mark)
            yield s._replace(
                images=min(most, s.images - start),
                source=s.source.moved(start * s.source.strides[0] * width),
                target=s.target.moved(start * s.target.strides[0] * width),
            )


def _is_copied(s, dtype, whole=False):
    """Whether `as_channels_last` copies the images of a sum."""
    probe = Builder()
    try:
        as_channels_last(probe, s.source, s.images, dtype, whole)
    except Refused:  # as too many for one copy
        return True
    return bool(probe.steps)


def placed(target, axes):
    """(pointer offset in elements, strides of n, each axis, channel) of the positions of a phase in the
    target.
    """
    n, c, *spatial = target.strides
    spatial = spatial[3 - len(axes) :]
    offset = sum(a.place_first * s for a, s in zip(axes, spatial))
    return offset, (n, *(a.place_step * s for a, s in zip(axes, spatial)), c)


def _few_channels(build, s, axes, dtype, unit):
    """(source, axes, packed weights, columns a tap) of a sum over few channels, or None where it does not
    apply.

    A k-tile of 128 bytes would be mostly zeros. With W padded and channels rounded up to 16 bytes, the taps
    of one row are neighbours in memory: they become the channels of an image whose pixels overlap.
    """
    width = BYTES[dtype]
    channels = 16 // width * ceil_div(s.source.channels, 16 // width)
    d, h, w = axes
    if s.source.channels * 2 > unit or w.taps < 2 or w.step != 1 or w.stride > maps.TRAVERSAL:
        return None
    D, H, _ = s.source.size
    columns = (w.count - 1) * w.stride + w.taps  # that are read
    total = s.images * D * H * columns * channels
    indexable(total, _extent(s.images, s.source))
    out = build.scratch("window", total * width)
    build.launch(
        layout.gather(width), (ceil_div(total, layout.THREADS),), s.source.pointer, out, total,
        s.source.channels, channels,
        D, H, columns, -w.origin, s.source.size[2], *s.source.strides,
    )  # fmt: skip
    view = channels_last(out.name, w.taps * channels, s.source.size, channels)
    starts = columns - w.taps + 1
    view = view._replace(
        size=(D, H, starts),
        strides=(D * H * columns * channels, 1, H * columns * channels, columns * channels, channels),
    )
    window = w._replace(size=starts, origin=0, taps=1)
    packed, rounded = packed_weight(build, s.weight, axes, dtype, 16 // width)
    return view, (d, h, window), packed, w.taps * rounded


def wgmma_tile(dtype, positions, rows):
    """(BN, consumers, blocks an SM) for the size of a problem: wide tiles when they still fill the device."""
    bn = next((b for b in (8, 16, 32, 64, 128) if rows <= b), 128 if dtype == "f32" else 256)
    while bn > 64 and ceil_div(positions, 128) * ceil_div(rows, bn) < SMS:
        bn //= 2
    if ceil_div(positions, 128) * ceil_div(rows, bn) >= SMS:
        return bn, 2, 1
    while bn > 16 and ceil_div(positions, 64) * ceil_div(rows, bn) < SMS:
        bn //= 2
    return bn, 1, 2 if igemm_sm90.stages_that_fit(dtype, bn, 1, 2) >= 3 else 1


def wgmma(sums, dtype, tile=None, build=None, multiprocessors=SMS):
    """The Program of a forward convolution or input gradient on sm_90 tensor cores.

    tile: (BN, consumers, blocks); build: what comes before; multiprocessors: of the device, whose blocks
    share out the tiles, which changes no bit.
    """
    width, storage = BYTES[dtype], "f32" if dtype == "tf32" else dtype
    build = build or Builder()
    alone = itertools.chain.from_iterable(s.alone(width) for s in sums)
    windowed = igemm_sm90.tile_channels(dtype) // 2  # channels at most, see `_few_channels`
    copied = lambda s: s.source.channels <= windowed or _is_copied(s, storage)  # noqa: E731
    for s in in_chunks(build, alone, dtype, copied):
        source = None  # channels last, once it is needed
        for axes in s.phases:
            used = spatial_axes(axes)
            positions = s.images * math.prod(a.count for a in used)
            indexable(positions, s.images * s.target.strides[0])
            bn, consumers, blocks = tile or wgmma_tile(dtype, positions, s.weight.rows)
            unit = igemm_sm90.tile_channels(dtype)
            # 16 bits are multiplied in either order, but only by whole boxes of 64 rows
            turned = width == 2 and s.weight.turned.as_it_lies(dtype, 8)
            bn = max(bn, 64) if turned else bn
            few = _few_channels(build, s, axes, dtype, unit)
            if few:
                image, walked, outs, pitch = few
                walked = spatial_axes(walked)
            else:
                source = source or as_channels_last(build, s.source, s.images, storage)
                image, walked = source, used
                if turned:
                    outs, pitch = [s.weight.pointer], s.weight.columns
                else:
                    outs, pitch = packed_weight(build, s.weight, axes, dtype, unit, 16 // width)
            image_map = im2col_map(image, s.images, walked, storage, 64 * consumers)
            check_tma(image_map, walked)
            columns = math.prod(max(1, a.taps) for a in walked) * pitch
            rows = s.weight.rows
            if turned:
                tiles = [maps.Tile(outs[0], storage, rows, columns, rows * width, (64, unit))]
            else:
                tiles = [maps.Tile(out, storage, columns, rows, columns * width, (unit, bn)) for out in outs]
            offset, strides = placed(s.target, used)
            even = all(v % 2 == 0 for v in (offset, *strides[:-1], rows))
            base = s.target.pointer
            planar = not (strides[-1] == 1 and even and base.offset % (2 * width) == 0)
            kernel = igemm_sm90.kernel(
                dtype, len(used), bn, consumers, bias=s.bias_of if s.bias else None, activation=s.activation,
                planar=planar, blocks=blocks, turned=turned,
            )  # fmt: skip
            grid = ceil_div(positions, 64 * consumers) * ceil_div(rows, bn)
            build.launch(
                kernel, (min(grid, multiprocessors * blocks),), image_map, *tiles,
                base._replace(offset=base.offset + offset * width),
                *([s.bias] if s.bias else []), positions, rows, ceil_div(image.channels, unit), pitch,
                *(getattr(a, what) for what in WALK for a in walked), *strides,
            )  # fmt: skip
    return build.program()


def _table(build, source, axes):
    """Pointer to the table of `gemm_f32` for a source, and its number of rows."""
    taps = [a.taps for a in axes]
    rows = source.channels * math.prod(taps)
    out = build.scratch("table", 16 * max(rows, 1))
    if rows:
        build.launch(
            layout.sum_table(), (ceil_div(rows, layout.THREADS),), out, rows, *taps, *source.strides[1:],
            *(a.step for a in axes),
        )  # fmt: skip
    return out, rows


def _extent(images, view):
    return sum(abs(s) * (size - 1) for s, size in zip(view.strides, (images, view.channels, *view.size)))


def _walk(axes, source):
    """The arguments of `gemm_f32` that say how positions lie in the source."""
    yield from (a.count for a in axes)
    yield from source.size
    yield source.strides[0]
    yield from source.strides[2:]
    yield from (a.stride for a in axes)
    yield from (a.origin for a in axes)


def ffma(sums, build=None):
    """The Program of a float32 forward convolution or input gradient in plain multiply-adds. build: what
    comes before.
    """
    build = build or Builder()
    for s in sums:
        rows, columns = s.weight.rows, s.weight.columns
        for axes in s.phases:
            positions = s.images * math.prod(a.count for a in axes)
            indexable(positions, _extent(s.images, s.source), _extent(s.images, s.target))
            table, terms = _table(build, s.source._replace(channels=columns), axes)
            (packed,), pitch = packed_weight(build, s.weight.turned, axes, "copy32", 4, groups=s.groups)
            offset, (y_n, *y_axes, y_k) = placed(s.target, axes)
            base = s.target.pointer
            kernel = gemm_f32.forward(s.bias is not None, s.activation)
            grid = ceil_div(positions, gemm_f32.TILE) * ceil_div(rows, gemm_f32.TILE)
            build.launch(
                kernel, (grid, s.groups), s.source.pointer, table, packed, _ahead(base, 4 * offset),
                *([s.bias] if s.bias else []), positions, rows, terms, pitch, *_walk(axes, s.source), y_n,
                *y_axes, y_k, columns * s.source.strides[1], terms * pitch, rows * y_k,
            )  # fmt: skip
    return build.program()


def mma_tile(positions, rows, groups=1):
    """The `igemm_sm80.Tile` for the size of a problem: a wide one unless it would leave most SMs idle."""
    wide = igemm_sm80.WIDE
    if ceil_div(positions, wide.positions) * ceil_div(rows, wide.channels) * groups * 4 <= SMS:
        return igemm_sm80.THIN
    return igemm_sm80.TALL if rows <= igemm_sm80.TALL.channels else wide


def mma(sums, dtype, tile=None, build=None):
    """The Program of a forward convolution or input gradient on sm_80 tensor cores. build: what comes
    before.
    """
    width, storage = BYTES[dtype], "f32" if dtype == "tf32" else dtype
    build = build or Builder()
    unit, piece = igemm_sm80.tile_channels(dtype), 16 // width
    # whole pieces of 16 bytes are read: what fills the last one of a group must be zeros, as in a copy
    split = [s.alone(width) if s.source.channels // s.groups % piece else (s,) for s in sums]
    copied = lambda s: _is_copied(s, storage, whole=True)  # noqa: E731
    for s in in_chunks(build, itertools.chain.from_iterable(split), dtype, copied):
        source = as_channels_last(build, s.source, s.images, storage, whole=True)
        rows, channels = s.weight.rows, piece * ceil_div(s.source.channels // s.groups, piece)
        for axes in s.phases:
            positions = s.images * math.prod(a.count for a in axes)
            indexable(positions, _extent(s.images, source), _extent(s.images, s.target))
            # "f32" is split in the kernel, so one copy of the weight is enough
            kind = "copy32" if dtype == "f32" else dtype
            (packed,), rounded = packed_weight(build, s.weight, axes, kind, unit, groups=s.groups)
            taps = [a.taps for a in axes]
            offset, (y_n, *y_axes, y_k) = placed(s.target, axes)
            shape = tile or mma_tile(positions, rows, s.groups)
            build.launch(
                igemm_sm80.kernel(dtype, s.bias is not None, s.activation, shape),
                (ceil_div(positions, shape.positions) * ceil_div(rows, shape.channels), s.groups),
                source.pointer, packed, _ahead(s.target.pointer, offset * width),
                *([s.bias] if s.bias else []), positions, rows, channels, rounded // unit, *taps,
                *_walk(axes, source), *(a.step for a in axes), y_n, *y_axes, y_k,
                channels, rows * math.prod(taps) * rounded, rows * y_k,
            )  # fmt: skip
    return build.program()


def splits(tiles, steps, wanted=None, least=8):
    """How many parts a sum of `steps` k-tiles is cut into, so that two waves of blocks are busy; and its
    steps a part.

    wanted: parts to cut it into instead, as far as that divides it.
    """
    wanted = wanted or max(1, min(ceil_div(2 * SMS, tiles), steps // least))
    per_part = max(1, ceil_div(steps, wanted))
    return ceil_div(steps, per_part), per_part


class Part(NamedTuple):
    """Groups of a weight gradient that are computed together; x and dy of all of them."""

    x: View
    dy: View
    rows: int
    columns: int
    out: Pointer
    groups: int = 1


def _groups_of_weight(problem, x, dy, width, together=False):
    """A `Part` for every group, or one for all of them."""
    G = problem.groups
    rows, columns = problem.K // G, problem.C // G
    if together:
        return [Part(x, dy, rows, columns, Pointer("dweight"), G)]
    step = rows * columns * problem.taps * width
    return [
        Part(x.group(g, G, width), dy.group(g, G, width), rows, columns, Pointer("dweight", g * step))
        for g in range(G)
    ]


def ffma_weight(problem, x, dy):
    """The Program of a float32 weight gradient in plain multiply-adds."""
    build = Builder()
    axes = geometry.forward(problem)
    positions = problem.N * math.prod(problem.out)
    indexable(positions, _extent(problem.N, x), _extent(problem.N, dy))
    for source, gradient, rows, columns, out, groups in _groups_of_weight(problem, x, dy, 4, True):
        table, elements = _table(build, source._replace(channels=columns), axes)
        tiles = ceil_div(elements, gemm_f32.TILE), ceil_div(rows, gemm_f32.TILE)
        parts, steps = splits(math.prod(tiles) * groups, ceil_div(positions, gemm_f32.DEPTH))
        size = groups * rows * elements
        indexable(size * parts)
        target = out if parts == 1 else build.scratch("parts", 4 * size * parts)
        n, c, *spatial = gradient.strides
        build.launch(
            gemm_f32.weight_gradient(), (*tiles, groups * parts), source.pointer, table, gradient.pointer,
            target, positions, rows, elements, steps, size, *_walk(axes, source), n, *spatial, c, parts,
            columns * source.strides[1], rows * c, rows * elements,
        )  # fmt: skip
        if parts > 1:
            taps = problem.taps
            sum_parts(
                build, "f32", target, out, groups * rows, columns, taps, parts, size, elements, taps, 1
            )
    return build.program()


def sum_parts(build, dtype, parts, out, rows, columns, taps, count, size, s_k, s_c, s_tap):
    total = rows * columns * taps
    build.launch(
        layout.sum_parts(dtype), (ceil_div(total, layout.THREADS),), parts, out, total, count, size,
        columns, taps, s_k, s_c,
        s_tap,
    )  # fmt: skip


def wgmma_weight(problem, x, dy, dtype, tile=None):
    """The Program of a 16-bit weight gradient on sm_90 tensor cores. tile: (BN, consumers, parts)."""
    build, width = Builder(), BYTES[dtype]
    axes = spatial_axes(geometry.forward(problem))
    positions = problem.N * math.prod(problem.out)
    indexable(positions)
    for source, gradient, rows, columns, out, _ in _groups_of_weight(problem, x, dy, width):
        source = as_channels_last(build, source, problem.N, dtype)
        gradient = as_channels_last(build, gradient, problem.N, dtype)
        if not _one_matrix(gradient, problem.N):
            raise Refused(f"needs dy without gaps between positions, got strides {gradient.strides}")
        bn, consumers, wanted = tile or (64 if columns <= 64 else 128, 1 if rows <= 64 else 2, None)
        image_map = im2col_map(source, problem.N, axes, dtype, wgrad_sm90.DEPTH)
        check_tma(image_map, axes)
        pitch = gradient.strides[4]
        dy_map = maps.Tile(
            gradient.pointer, dtype, gradient.channels, positions, pitch * width, (64, wgrad_sm90.DEPTH)
        )
        c_tiles, k_tiles = ceil_div(columns, bn), ceil_div(rows, 64 * consumers)
        chunks = ceil_div(positions, wgrad_sm90.DEPTH)
        parts, steps = splits(c_tiles * problem.taps * k_tiles, chunks, wanted)
        rounded = 2 * ceil_div(columns, 2)  # two neighbours are stored at once
        size = rows * problem.taps * rounded
        indexable(size * parts)
        direct = parts == problem.taps == 1 and columns == rounded and out.offset % 4 == 0
        target = out if direct else build.scratch("parts", 4 * size * parts)
        build.launch(
            wgrad_sm90.kernel(dtype, len(axes), bn, consumers, direct=direct),
            (c_tiles * problem.taps, k_tiles, parts), image_map, dy_map, target, rows, rounded, c_tiles,
            steps, size, problem.taps * rounded, rounded, *(getattr(a, what) for what in WALK for a in axes),
        )  # fmt: skip
        if not direct:
            sum_parts(
                build, dtype, target, out, rows, columns, problem.taps, parts, size, problem.taps * rounded,
                1, rounded,
            )  # fmt: skip
    return build.program()


def mma_weight(problem, x, dy, dtype, parts=None):
    """The Program of a weight gradient on sm_80 tensor cores. parts: to cut the sum into, None for as many
    as keep the device busy.
    """
    width, storage = BYTES[dtype], "f32" if dtype == "tf32" else dtype
    build, unit = Builder(), 16 // width
    axes = geometry.forward(problem)
    positions = problem.N * math.prod(problem.out)
    # as for `mma`, whole pieces of 16 bytes are read
    whole = problem.K // problem.groups % unit == problem.C // problem.groups % unit == 0
    for source, gradient, rows, columns, out, groups in _groups_of_weight(problem, x, dy, width, whole):
        source = as_channels_last(build, source, problem.N, storage, whole=True)
        gradient = as_channels_last(build, gradient, problem.N, storage, whole=True)
        indexable(positions, _extent(problem.N, source), _extent(problem.N, gradient))
        channels = unit * ceil_div(columns, unit)
        elements = problem.taps * channels
        size = groups * rows * elements
        tiles = ceil_div(elements, wgrad_sm80.TILE), ceil_div(rows, wgrad_sm80.TILE)
        steps = ceil_div(positions, wgrad_sm80.depth(dtype))
        count, steps = splits(math.prod(tiles) * groups, steps, parts)
        indexable(size * count)
        direct = count == problem.taps == 1 and columns == channels and out.offset % 8 == 0
        target = out if direct else build.scratch("parts", 4 * size * count)
        n, _, *spatial = gradient.strides
        build.launch(
            wgrad_sm80.kernel(dtype, direct), (*tiles, groups * count), source.pointer, gradient.pointer,
            target, problem.N, rows, channels, elements, steps, size, *(a.taps for a in axes),
            *_walk(axes, source), *(a.step for a in axes), n, *spatial, count, columns, rows, rows * elements,
        )  # fmt: skip
        if not direct:
            sum_parts(
                build, storage, target, out, groups * rows, columns, problem.taps, count, size, elements, 1,
                channels,
            )  # fmt: skip
    return build.program()


def _one_matrix(view, images):
    """Whether all positions of a channels-last view are equally far apart."""
    n, _, d, h, w = view.strides
    D, H, W = view.size
    return (H == 1 or h == W * w) and (D == 1 or d == H * W * w) and (images == 1 or n == D * H * W * w)
