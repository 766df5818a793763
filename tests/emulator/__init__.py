"""A NumPy emulator of generated kernels: the text runs block by block, every thread of a warpgroup a NumPy
lane.

`Device` stands for the driver: it owns poisoned global memory, and `launch` runs a `Kernel`. Modelled:
32-bit wrap-around, alignment and bounds of every access, cp.async groups, ldmatrix, mma.sync, TMA tile and
im2col loads with zero fill and 128-byte swizzle, mbarrier phases (deadlock and over-arrival are errors),
wgmma through its descriptors, bank conflicts, and hazards: two threads that meet in shared memory without a
barrier between them, a tile that is read before its barrier was awaited or overwritten while a product
still reads it. Not modelled: speed, memory ordering beyond barriers, asynchronous register results. It
holds one reading of the PTX manual, which a run on hardware must confirm.
"""

import itertools
import math
import threading
import types

import numpy as np

from . import operations

MASK = 0xFFFFFFFF
WAIT = 60  # seconds until a barrier counts as a deadlock
F32 = np.float32


def uint32(x):
    if np.ndim(x) == 0:
        return int(x) & MASK
    return np.asarray(x).astype(np.int64) & MASK


def uint64(x):
    return int(x) if np.ndim(x) == 0 else np.asarray(x).astype(np.int64)


def uint16(x):
    return int(x) & 0xFFFF


def float32(x):
    return np.asarray(x).astype(F32)


class Device:
    """Global memory and a launcher.

    Fresh memory is poison (NaN in every float format); gaps belong to nobody.
    """

    def __init__(self, megabytes=8):
        self.memory = np.full(megabytes << 20, 0xFF, np.uint8)
        self.owned = np.zeros(self.memory.size, bool)
        self.top = 1024
        self.launches = []  # (kernel name, grid)
        self.conflicts = {}  # operation -> worst number of lanes that wait for one bank

    def allocate(self, nbytes):
        address = self.top
        self.top = -(-(address + nbytes + 64) // 256) * 256
        assert self.top <= self.memory.size, "the emulated device is full"
        self.owned[address : address + nbytes] = True
        return address

    def put(self, array):
        array = np.ascontiguousarray(array)
        address = self.allocate(array.nbytes)
        self.memory[address : address + array.nbytes] = array.view(np.uint8).ravel()
        return address

    def get(self, address, shape, dtype):
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return self.memory[address : address + nbytes].view(dtype).reshape(shape).copy()

    def launch(self, kernel, grid, arguments, stream=0):
        assert len(arguments) == len(kernel.parameters), "wrong number of arguments"
        for letter, argument in zip(kernel.parameters, arguments):
            if letter == "M":
                assert argument.refused() is None, argument.refused()
            elif letter == "I":
                assert -(2**31) <= argument < 2**32
        grid = (*grid, 1, 1)[:3]
        assert all(1 <= g for g in grid) and grid[0] < 2**31 and max(grid[1:]) < 2**16, grid
        self.launches.append((kernel.name, grid))
        code = compile(kernel.source, f"<{kernel.name}>", "exec")
        values = [a & MASK if letter == "I" else a for letter, a in zip(kernel.parameters, arguments)]
        values = [F32(a) if letter == "F" else a for letter, a in zip(kernel.parameters, values)]
        for z, y, x in itertools.product(*(range(g) for g in reversed(grid))):
            Block(self, kernel, (x, y, z), grid).run(code, values)


class Block:
    """One thread block: shared memory, barriers, and its lanes in one group or one per warpgroup."""

    BASE = 16  # shared memory starts aligned to 16 bytes only

    def __init__(self, device, kernel, index, grid):
        self.device, self.kernel, self.index, self.grid = device, kernel, index, grid
        self.memory, self.owned = device.memory, device.owned
        self.shared = np.full(self.BASE + kernel.shared, 0xFF, np.uint8)
        self.shared[: self.BASE] = 0
        specialised = "barrier_init" in kernel.source
        self.groups = kernel.threads // 128 if specialised else 1
        self.lanes = kernel.threads // self.groups
        self.rendezvous = threading.Barrier(self.groups)
        self.changed = threading.Condition()
        self.barriers = {}
        self.failures = []
        self.filled = {}  # tile start -> (barrier, phase) of its TMA load
        self.reading = []  # (group, first byte, last byte) of products in flight
        self.epoch = 1
        n = self.shared.size
        self.writer, self.written = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.reader, self.read = np.zeros(n, np.int32), np.zeros(n, np.int32)

    def run(self, code, values):
        if self.groups == 1:
            return self._body(0, code, values)
        threads = [threading.Thread(target=self._guarded, args=(g, code, values)) for g in range(self.groups)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * WAIT)
        if self.failures:
            raise self.failures[0]
        assert not any(thread.is_alive() for thread in threads), "deadlock"

    def _guarded(self, group, code, values):
        try:
            self._body(group, code, values)
        except BaseException as error:  # carried to the main thread, and the other groups are woken
            with self.changed:
                self.failures.append(error)
                self.changed.notify_all()
            self.rendezvous.abort()

    def _body(self, group, code, values):
        lanes = Lanes(self, group)
        with np.errstate(all="ignore"):
            scope = lanes.namespace()
            exec(code, scope)
            scope[self.kernel.name](*values)
            lanes.finish()


class Lanes:
    """The threads of a block, or of one of its warpgroups, as NumPy lanes."""

    def __init__(self, block, group):
        self.block, self.group, self.n = block, group, block.lanes
        self.thread = np.arange(group * self.n, (group + 1) * self.n, dtype=np.int64)
        self.warps = self.n // 32
        self.copies, self.copy_groups = [], []  # cp.async: current group, committed groups
        self.seen = {}  # barrier -> phases awaited
        self.products = []  # committed wgmma groups, each a list of byte ranges
        self.open_products = []

    def namespace(self):
        block = self.block
        point = types.SimpleNamespace
        cuda = point(
            threadIdx=point(x=self.thread),
            blockIdx=point(**dict(zip("xyz", block.index))),
            gridDim=point(**dict(zip("xyz", block.grid))),
            shared=point(array=lambda shape, dtype: "dynamic"),
            syncthreads=self.synchronise,
        )
        scope = dict(
            uint16=uint16, uint32=uint32, uint64=uint64, float32=float32, cuda=cuda, math=operations.math
        )
        scope.update(operations.table(self))
        for alias, family, *arguments in block.kernel.operations:
            scope[alias] = operations.family(self, family, *arguments)
        return scope

    def synchronise(self):
        if self.block.groups > 1:
            self.block.rendezvous.wait(WAIT)
        self.block.epoch += 1

    def finish(self):
        assert not self.copies, "cp.async without commit"
        assert not self.products and not self.open_products, "wgmma without wait"

    def conflict(self, name, degree):
        worst = self.block.device.conflicts
        worst[name] = max(worst.get(name, 1), int(degree))

    # -- values of lanes -------------------------------------------------------------------------------------

    def full(self, x, dtype=np.int64):
        return np.broadcast_to(np.asarray(x), (self.n,)).astype(dtype)

    def scalar(self, x):
        """A value that the whole group shares."""
        values = np.unique(np.asarray(x))
        assert values.size == 1, "a value that all threads must share differs between them"
        return int(values[0])

    # -- memory ----------------------------------------------------------------------------------------------

    def _bytes(self, address, nbytes):
        assert (address % nbytes == 0).all(), f"misaligned access of {nbytes} bytes"
        return address[:, None] + np.arange(nbytes)

    def global_load(self, address, nbytes, predicate=1):
        where = self.full(predicate) != 0
        out = np.zeros((self.n, nbytes), np.uint8)
        at = self._bytes(self.full(address)[where], nbytes)
        assert ((at >= 0) & (at < self.block.owned.size)).all() and self.block.owned[at].all(), (
            "global read out of bounds"
        )
        out[where] = self.block.memory[at]
        return out

    def global_store(self, address, data, predicate=1):
        where = self.full(predicate) != 0
        at = self._bytes(self.full(address)[where], data.shape[1])
        assert ((at >= 0) & (at < self.block.owned.size)).all() and self.block.owned[at].all(), (
            "global write out of bounds"
        )
        assert np.unique(at[:, 0]).size == len(at), "two threads store to one address"
        self.block.memory[at] = data[where]

    def _shared_bytes(self, address, nbytes, name):
        at = self._bytes(address, nbytes)
        assert (at >= self.block.BASE).all() and (at < self.block.shared.size).all(), (
            "shared access out of bounds"
        )
        # lanes are served in groups that move 128 bytes: 32 of 4 bytes, 16 of 8, 8 of 16
        together = max(1, min(32, 128 // max(nbytes, 4)))
        if address.size % together == 0:
            words = np.sort((at[:, ::4] // 4).reshape(-1, together * max(1, nbytes // 4)), axis=1)
            distinct = np.ones(words.shape, bool)
            distinct[:, 1:] = words[:, 1:] != words[:, :-1]
            bank = words % 32 + 32 * np.arange(len(words))[:, None]
            self.conflict(name, np.bincount(bank[distinct]).max())
        return at

    def shared_load(self, address, nbytes, name="shared_load"):
        block, address = self.block, self.full(address)
        at = self._shared_bytes(address, nbytes, name)
        me = self.thread[:, None] + 1
        if block.groups == 1:
            fresh = block.written[at] == block.epoch
            assert (~fresh | (block.writer[at] == me)).all(), (
                "shared memory read without a barrier after its write"
            )
            again = block.read[at] == block.epoch
            block.reader[at] = np.where(again & (block.reader[at] != me), -1, me)
            # of several readers in one statement the last won: mark the addresses of the others as read by
            # many
            lost = block.reader[at[:, 0]] != me[:, 0]
            block.reader[at[lost]] = -1
            block.read[at] = block.epoch
        else:
            for start in np.unique(address // 1024 * 1024):
                self.awaited(int(start))
        return block.shared[at]

    def shared_store(self, address, data, name="shared_store"):
        block, address = self.block, self.full(address)
        at = self._shared_bytes(address, data.shape[1], name)
        assert np.unique(at[:, 0]).size == len(at), "two threads store to one shared address"
        if block.groups == 1:
            self._may_write(at, self.thread[:, None] + 1)
        block.shared[at] = data

    def _may_write(self, at, me):
        block = self.block
        read = block.read[at] == block.epoch
        assert (~read | (block.reader[at] == me)).all(), (
            "shared memory overwritten without a barrier after its read"
        )
        written = block.written[at] == block.epoch
        assert (~written | (block.writer[at] == me)).all(), (
            "two threads write shared memory without a barrier"
        )
        block.writer[at] = me
        block.written[at] = block.epoch

    # -- tiles that the TMA unit fills -----------------------------------------------------------------------

    def fill(self, start, rows, barrier):
        """Rows of 128 bytes to shared memory, 128-byte swizzled, and their bytes reported to the barrier."""
        block = self.block
        assert start % 1024 == 0, "a swizzled tile must be aligned to 1024 bytes"
        end = start + rows.size
        assert block.BASE <= start and end <= block.shared.size, "tile out of bounds"
        with block.changed:
            busy = [r for r in block.reading if r[1] < end and r[2] > start]
            assert not busy, "a tile is overwritten while a product reads it"
            at = start + np.arange(rows.size).reshape(rows.shape)
            block.shared[operations.swizzled(at)] = rows
            phase = block.barriers[barrier].phase + 1
            for piece in range(start, end, 1024):
                block.filled[piece] = (barrier, phase)
            block.barriers[barrier].complete(rows.size, block.changed)

    def awaited(self, start):
        """The tile at `start` was loaded, and this group has waited for that."""
        filled = self.block.filled.get(start)
        assert filled is not None, "a tile is read that was never loaded"
        assert self.seen.get(filled[0], 0) >= filled[1], "a tile is read before its barrier was awaited"
