"""The operations of `fastconv.cuda._ptx`, on NumPy lanes."""

import types

import numpy as np

F32 = np.float32

math = types.SimpleNamespace(
    expm1=lambda x: np.expm1(x).astype(F32),
    exp=lambda x: np.exp(x).astype(F32),
    tanh=lambda x: np.tanh(x).astype(F32),
    log=lambda x: np.log(x).astype(F32),
    sqrt=lambda x: np.sqrt(x).astype(F32),
)


def swizzled(address):
    """Where a byte of a 128-byte swizzled tile lies: its 16-byte piece is XORed with its row modulo 8."""
    return address ^ (((address >> 7) & 7) << 4)


def from_bits(bits, dtype):
    """16-bit patterns as float32."""
    if dtype == "bf16":
        return (bits.astype(np.uint32) << 16).view(F32)
    return bits.view(np.float16).astype(F32)


def to_bits(values, dtype):
    """float32 rounded to nearest even, as 16-bit patterns."""
    values = np.ascontiguousarray(values, F32)
    if dtype == "f16":
        return values.astype(np.float16).view(np.uint16)
    u = values.view(np.uint32)
    rounded = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def tf32(bits):
    """What a tensor core sees of float32 bits."""
    return (bits & np.uint32(0xFFFFE000)).view(F32)


class Barrier:
    """mbarrier: `phase` counts completed phases."""

    def __init__(self, count):
        self.phase, self.count, self.missing, self.bytes = 0, count, count, 0

    def _settle(self, changed):
        if self.missing == 0 and self.bytes == 0:
            self.phase, self.missing = self.phase + 1, self.count
            changed.notify_all()

    def arrive(self, times, changed):
        self.missing -= times
        assert self.missing >= 0, "more arrivals than the barrier counts"
        self._settle(changed)

    def expect(self, nbytes, changed):
        self.bytes += nbytes
        self.arrive(1, changed)

    def complete(self, nbytes, changed):
        self.bytes -= nbytes
        self._settle(changed)


def table(lanes):
    """name -> function, for the operations of `_ptx.TABLE`."""
    block, n = lanes.block, lanes.n
    signed = lambda x: (lanes.scalar(x) ^ 0x80000000) - 0x80000000  # noqa: E731

    def words(data):
        return data.view(np.uint32).astype(np.int64)

    def as_bytes(values, width):
        return np.ascontiguousarray(lanes.full(values, width)).view(np.uint8).reshape(n, -1)

    def uniform(x):
        per_warp = np.asarray(lanes.full(x)).reshape(-1, 32)
        assert (per_warp == per_warp[:, :1]).all(), "uniform() of a value that differs inside a warp"
        return int(per_warp[0, 0]) if (per_warp == per_warp[0, 0]).all() else per_warp.ravel()

    def one_thread(a, b):
        return bool((np.asarray(a) == b).any())

    def less(a, b):
        return (np.asarray(a) < np.asarray(b)).astype(np.int64) if np.ndim(a) or np.ndim(b) else int(a < b)

    def select(a, b, p):
        return np.where(np.asarray(p) != 0, a, b)

    def load(nbytes):
        def run(address, predicate):
            data = lanes.global_load(address, nbytes, predicate)
            return data.view(f"u{nbytes}").astype(np.int64).ravel()

        return run

    def load_wide(nbytes):
        def run(address, predicate):
            data = words(lanes.global_load(address, nbytes, predicate))
            return tuple(data[:, i].copy() for i in range(nbytes // 4))

        return run

    def store(nbytes):
        def run(address, v, p):
            lanes.global_store(address, as_bytes(np.asarray(v) & (2 ** (8 * nbytes) - 1), f"u{nbytes}"), p)

        return run

    def store_wide(address, *values):
        *values, p = values
        lanes.global_store(address, np.concatenate([as_bytes(v, np.uint32) for v in values], 1), p)

    def shared_extreme(name, ufunc):
        """Of all lanes at once: no lane may read the place before the next barrier, or have read it."""

        def run(address, v, p):
            where = lanes.full(p) != 0
            if not where.any():
                return
            at = lanes._shared_bytes(lanes.full(address)[where], 4, name)
            assert (block.read[at] < block.epoch).all(), "changed without a barrier after a read"
            fresh = block.written[at] == block.epoch
            assert (~fresh | (block.writer[at] == -1)).all(), "changed without a barrier after a store"
            ufunc.at(block.shared.view(np.uint32), at[:, 0] // 4, lanes.full(v)[where].astype(np.uint32))
            block.writer[at], block.written[at] = -1, block.epoch

        return run

    def minimum64(address, v, p):
        where = lanes.full(p) != 0
        at = lanes._bytes(lanes.full(address)[where], 8)
        assert block.owned[at].all(), "global write out of bounds"
        for place, value in zip(at[:, 0], lanes.full(v)[where]):
            word = block.memory[place : place + 8].view(np.uint64)
            word[0] = min(int(word[0]), int(value))

    def shared_load4(address):
        data = lanes.shared_load(address, 16, "shared_load4").view(F32)
        return tuple(data[:, i].copy() for i in range(4))

    def shared_load(nbytes):
        return lambda address: lanes.shared_load(address, nbytes).view(f"u{nbytes}").astype(np.int64).ravel()

    def copy(nbytes, name):
        def run(target, source, size):
            size = lanes.full(size)
            assert np.isin(size, (0, nbytes)).all(), "cp.async must read all or nothing"
            data = lanes.global_load(source, nbytes, size)
            at = lanes._shared_bytes(lanes.full(target), nbytes, name)
            assert np.unique(at[:, 0]).size == n, "two threads copy to one shared address"
            lanes._may_write(at, lanes.thread[:, None] + 1)
            block.shared[at] = 0xFF  # until the wait, it may hold anything
            lanes.copies.append((at, data))

        return run

    def commit():
        lanes.copy_groups.append(lanes.copies)
        lanes.copies = []

    def matrix_load(transposed):
        def run(address):
            rows = lanes.full(address)
            assert (rows % 16 == 0).all(), "ldmatrix rows must be aligned to 16 bytes"
            # every lane's row is read by other lanes of its warp: check the hazard as the warp's first
            # lane would meet it
            pieces = rows.reshape(-1, 8) // 16 % 8
            lanes.conflict("matrix_load", max(8 - len(set(p)) + 1 for p in pieces))
            at = rows[:, None] + np.arange(16)
            assert (at >= block.BASE).all() and (at < block.shared.size).all(), "shared access out of bounds"
            assert (block.written[at] < block.epoch).all(), (
                "shared memory read without a barrier after its write"
            )
            block.read[at], block.reader[at] = block.epoch, -1
            data = block.shared[at].view(np.uint16).reshape(lanes.warps, 4, 8, 8)
            if transposed:
                data = data.transpose(0, 1, 3, 2)
            pairs = np.ascontiguousarray(data).view(np.uint32).reshape(lanes.warps, 4, 32)
            return tuple(pairs[:, i].ravel().astype(np.int64) for i in range(4))

        return run

    def barrier_init(address, count):
        assert address % 8 == 0 and block.BASE <= address <= block.shared.size - 8
        with block.changed:
            block.barriers[address] = Barrier(count)

    def barrier_arrive(address, predicate):
        with block.changed:
            block.barriers[address].arrive(int(lanes.full(predicate).sum()), block.changed)

    def barrier_expect(address, nbytes):
        with block.changed:
            block.barriers[address].expect(nbytes, block.changed)

    def barrier_wait(address, parity):
        barrier = block.barriers[address]
        with block.changed:
            ready = block.changed.wait_for(lambda: block.failures or barrier.phase % 2 != parity, 30)
            assert ready, "deadlock: a barrier was awaited for 30 s"
            assert not block.failures, "another warpgroup failed"
            lanes.seen[address] = barrier.phase

    def box(tensor, starts, sizes, strides, count):
        """Rows of `count` elements along the fastest axis, from each of `starts` (fastest index first);
        zeros outside.
        """
        from fastconv.cuda.gen.kernel import BYTES

        width = BYTES[tensor.dtype]
        starts = np.asarray(starts, np.int64)
        first = starts[:, :1] + np.arange(count)
        inside = (first >= 0) & (first < sizes[0])
        inside &= ((starts[:, 1:] >= 0) & (starts[:, 1:] < np.asarray(sizes[1:]))).all(1)[:, None]
        at = tensor.address + first * width + (starts[:, 1:] * np.asarray(strides)).sum(1)[:, None]
        at, inside = (
            at[..., None] + np.arange(width),
            np.broadcast_to(inside[..., None], (*inside.shape, width)),
        )
        assert block.owned[at[inside]].all(), "a tensor map reads out of bounds"
        out = np.zeros(at.shape, np.uint8)
        out[inside] = block.memory[at[inside]]
        return out.reshape(len(starts), -1)

    def tma_tile(target, tensor, barrier, column, row):
        column, row = signed(column), signed(row)
        starts = [(column, row + i) for i in range(tensor.box[1])]
        rows = box(tensor, starts, (tensor.columns, tensor.rows), (tensor.stride,), tensor.box[0])
        lanes.fill(lanes.scalar(target), rows, barrier)

    def tma_im2col(rank):
        def run(target, tensor, barrier, channel, *rest):
            assert len(tensor.lower) == rank
            base, image, offsets = [signed(v) for v in rest[:rank]], signed(rest[rank]), rest[rank + 1 :]
            assert all(0 <= o <= {2: 255, 3: 31}[rank] for o in offsets), "a tap offset leaves its bits"
            starts, channel = [], signed(channel)
            for _ in range(tensor.pixels):
                starts.append((channel, *(b + o for b, o in zip(base, offsets)), image))
                for axis in range(rank):
                    base[axis] += tensor.traversal[axis]
                    if base[axis] < tensor.sizes[1 + axis] + tensor.upper[axis]:
                        break
                    base[axis] = tensor.lower[axis]
                else:
                    image += 1
            lanes.fill(
                lanes.scalar(target),
                box(tensor, starts, tensor.sizes, tensor.strides, tensor.channels),
                barrier,
            )

        return run

    def wgmma_commit():
        lanes.products.append(lanes.open_products)
        lanes.open_products = []

    nothing = lambda *_: None  # noqa: E731
    f32_bits = lambda x: lanes.full(x, F32).view(np.uint32).astype(np.int64)  # noqa: E731
    f32_value = lambda x: lanes.full(x, np.uint32).view(F32)  # noqa: E731
    return dict(
        shared_address=lambda _: block.BASE, lt=less,
        equal=lambda a, b: (np.asarray(a) == np.asarray(b)).astype(np.int64),
        one_thread=one_thread, bits=f32_bits, value=f32_value, uniform=uniform, select=select,
        choose=lambda a, b, p: np.where(np.asarray(p) != 0, a, b).astype(F32),
        maximum=lambda a, b: np.maximum(a, b).astype(F32),
        above=lambda a, b: (~(np.asarray(a) <= np.asarray(b))).astype(np.int64),
        rounded_tf32=lambda x: (np.asarray(x) + 0x1000) & 0xFFFFE000,
        rest=lambda a, b: f32_bits(f32_value(a) - f32_value(b)),
        load32=load(4), load16=load(2), store32=store(4), store16=store(2), load128=load_wide(16),
        load64=load_wide(8), load8=load(1), store128=store_wide, store64=store_wide, minimum64=minimum64,
        shared_minimum=shared_extreme("shared_minimum", np.minimum),
        shared_maximum=shared_extreme("shared_maximum", np.maximum),
        shared_load=shared_load(4), shared_load16=shared_load(2), shared_load4=shared_load4,
        shared_store=lambda a, v: lanes.shared_store(a, as_bytes(v, np.uint32)),
        shared_store16=lambda a, v: lanes.shared_store(a, as_bytes(v, np.uint16)),
        copy16=copy(16, "copy16"), copy4=copy(4, "copy4"), copy_commit=commit,
        matrix_load=matrix_load(False), matrix_load_transposed=matrix_load(True),
        barrier_init=barrier_init, barrier_init_fence=nothing, barrier_expect=barrier_expect,
        barrier_arrive=barrier_arrive,
        barrier_wait=barrier_wait, tma_tile=tma_tile, tma_im2col2=tma_im2col(2), tma_im2col3=tma_im2col(3),
        tma_prefetch=nothing, wgmma_fence=nothing, wgmma_commit=wgmma_commit,
    )  # fmt: skip


# -- families ------------------------------------------------------------------------------------------------


def family(lanes, name, *arguments):
    return FAMILIES[name](lanes, *arguments)


def _zeros(lanes, n):
    """Accumulators are the rows of one array, so that an operation on all of them is one step."""
    return lambda: np.zeros((n, lanes.n), F32)


def _accumulate(lanes, n):
    return lambda a, b: a + b


def _outer_sum(lanes, depth, pitch):
    def run(acc, a, b):
        for k in range(depth):
            x, y = (
                np.concatenate(
                    [lanes.shared_load(at + k * pitch + d, 16, "outer_sum").view(F32).T for d in (0, 256)]
                )
                for at in (a, b)
            )
            acc = acc + (x[:, None] * y[None]).reshape(64, lanes.n)
        return acc

    return run


def _row_sums(lanes, rows, turned):
    def run(acc, x, w, turn):
        acc = acc.copy()
        for q in range(8):
            if turned:
                load = lambda k: lanes.shared_load(w + 128 * k, 4, "row_sums").view(F32).ravel()  # noqa: E731
                weights = [load(4 * q + j) for j in range(4)]
            else:
                piece = lanes.full(w) + ((lanes.full(turn) ^ q) << 4)
                weights = lanes.shared_load(piece, 16, "row_sums").view(F32).T
            for r in range(rows):
                values = lanes.shared_load(lanes.full(x) + 128 * r + 16 * q, 16, "row_sums").view(F32).T
                for value, weight in zip(values, weights):
                    acc[r] += value * weight
        return acc

    return run


def _operand(lanes, descriptor, rows, dtype, transposed):
    """(rows, k) matrix of a shared operand, and the bytes it spans."""
    block = lanes.block
    descriptor = lanes.scalar(descriptor) if np.ndim(descriptor) else int(descriptor)
    assert descriptor >> 62 == 1 and (descriptor >> 49) & 7 == 0, (
        "descriptor: 128-byte swizzle and base offset 0 expected"
    )
    start = (descriptor & 0x3FFF) << 4
    leading, stride = ((descriptor >> 16) & 0x3FFF) << 4, ((descriptor >> 32) & 0x3FFF) << 4
    i = np.arange(rows)[:, None]
    if transposed:
        k = np.arange(16)
        at = start + (i // 64) * leading + (i % 64) * 2 + (k // 8) * stride + (k % 8) * 128
        at = at[..., None] + np.arange(2)
    else:
        at = start + (i // 8) * stride + (i % 8) * 128 + np.arange(32)
    for piece in np.unique(at // 1024 * 1024):
        lanes.awaited(int(piece))
    data = np.ascontiguousarray(block.shared[swizzled(at)])
    span = (int(at.min()), int(at.max()) + 1)
    if dtype == "tf32":
        return tf32(data.view(np.uint32)), span
    return from_bits(data.reshape(rows, -1).view(np.uint16), dtype), span


def _wgmma(lanes, n, dtype, form):
    lane, warp = np.arange(128) & 31, np.arange(128) >> 5
    row = warp * 16 + (lane >> 2)

    def run(acc, *operands):
        assert len(acc) == n // 2
        *a, b, keep = operands
        spans = []
        if form == "rs":
            left = np.zeros((64, 8), F32)
            for register, (down, right) in zip(a, ((0, 0), (8, 0), (0, 4), (8, 4))):
                left[row + down, (lane & 3) + right] = tf32(lanes.full(register, np.uint32))
        else:
            left, span = _operand(lanes, a[0], 64, dtype, form == "mn")
            spans.append(span)
        right, span = _operand(lanes, b, n, dtype, form in ("mn", "kn"))
        spans.append(span)
        lanes.open_products += spans
        with lanes.block.changed:
            lanes.block.reading += [(lanes.group, *span) for span in spans]
        product = (left.astype(np.float64) @ right.astype(np.float64).T).astype(F32)
        j = np.arange(n // 8)[:, None, None]
        down, across = np.array([0, 0, 8, 8])[:, None], np.array([0, 1, 0, 1])[:, None]
        value = product[row + down, 8 * j + (lane & 3) * 2 + across].reshape(n // 2, 128)
        return acc + value if keep else value

    return run


def _wgmma_wait(lanes, pending):
    def run():
        while len(lanes.products) > pending:
            done = lanes.products.pop(0)
            with lanes.block.changed:
                for span in done:
                    lanes.block.reading.remove((lanes.group, *span))

    return run


def _mma(lanes, rows, columns, dtype):
    lane = np.arange(32)
    g, q = lane >> 2, lane & 3
    W = lanes.warps

    def fragments(registers, places, shape):
        """Matrices (warps, *shape) from registers; places[i] = (row, column) of each lane's (first)
        element.
        """
        out = np.zeros((W, *shape), F32)
        for register, (r, c, dr, dc) in zip(registers, places):
            bits = lanes.full(register, np.uint32).reshape(W, 32)
            if dtype == "tf32":
                out[:, r, c] = tf32(bits)
            else:
                out[:, r, c] = from_bits((bits & 0xFFFF).astype(np.uint16), dtype)
                out[:, r + dr, c + dc] = from_bits((bits >> 16).astype(np.uint16), dtype)
        return out

    if dtype == "tf32":
        a_places = [(g + r, q + c, 0, 0) for c in (0, 4) for r in (0, 8)]
        b_places = [(q + k, g, 0, 0) for k in (0, 4)]
        k = 8
    else:
        a_places = [(g + r, 2 * q + c, 0, 1) for c in (0, 8) for r in (0, 8)]
        b_places = [(2 * q + k, g, 1, 0) for k in (0, 8)]
        k = 16

    def run(acc, a, b):
        acc = acc.copy()
        left = [fragments(a[4 * m : 4 * m + 4], a_places, (16, k)) for m in range(rows)]
        right = [fragments(b[2 * j : 2 * j + 2], b_places, (k, 8)) for j in range(columns)]
        for m in range(rows):
            for j in range(columns):
                d = left[m] @ right[j]
                first = (m * columns + j) * 4
                for i, (r, c) in enumerate(((0, 0), (0, 1), (8, 0), (8, 1))):
                    acc[first + i] += d[:, g + r, 2 * q + c].ravel()
        return acc

    return run


def _load(lanes, dtype):
    def run(address, predicate):
        data = lanes.global_load(address, 4 if dtype == "f32" else 2, predicate)
        return (
            data.view(F32).ravel().copy()
            if dtype == "f32"
            else from_bits(data.view(np.uint16).ravel(), dtype)
        )

    return run


def _encoded(lanes, values, dtype):
    values = lanes.full(values, F32)
    bits = values.view(np.uint32) if dtype == "f32" else to_bits(values, dtype)
    return np.ascontiguousarray(bits).view(np.uint8).reshape(lanes.n, -1)


def _store(lanes, dtype):
    return lambda address, v, p: lanes.global_store(address, _encoded(lanes, v, dtype), p)


def _store2(lanes, dtype):
    def run(address, v0, v1, p):
        lanes.global_store(address, np.concatenate([_encoded(lanes, v, dtype) for v in (v0, v1)], 1), p)

    return run


def _pack(lanes, dtype):
    def run(low, high):
        pair = [to_bits(lanes.full(v, F32), dtype).astype(np.int64) for v in (low, high)]
        return pair[0] | pair[1] << 16

    return run


def _unpack(lanes, dtype):
    def run(x):
        x = lanes.full(x, np.uint32)
        return tuple(from_bits(v.astype(np.uint16), dtype) for v in (x & 0xFFFF, x >> 16))

    return run


def _copy_wait(lanes, pending):
    def run():
        block = lanes.block
        while len(lanes.copy_groups) > pending:
            for at, data in lanes.copy_groups.pop(0):
                block.shared[at] = data
                block.writer[at], block.written[at] = lanes.thread[:, None] + 1, block.epoch

    return run


def _shuffle_xor(lanes, mask):
    return lambda x: lanes.full(x, F32)[np.arange(lanes.n) ^ mask]


FAMILIES = dict(
    zeros=_zeros, accumulate=_accumulate, outer_sum=_outer_sum, row_sums=_row_sums,
    wgmma=_wgmma, mma=_mma, load=_load,
    store=_store, store2=_store2,
    pack=_pack, unpack=_unpack, copy_wait=_copy_wait, wgmma_wait=_wgmma_wait,
    registers=lambda *_: lambda: None,
    shuffle_xor=_shuffle_xor,
)  # fmt: skip
