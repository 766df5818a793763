"""Host logic of the device kernels, without a device.

Geometry, limits, cache, packing of parameters, the tables.
"""

import ctypes
import multiprocessing
import os

import numpy as np
import pytest

from fastconv import DeviceError
from fastconv.cuda import _cache, _driver, _launch, geometry, maps
from fastconv.cuda.gen import igemm_sm90
from fastconv.cuda.program import Pointer, Program, Step, resolved

# -- geometry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", [1, 2, 3, 7])
def test_phases_are_the_adjoint(stride, dilation, taps):
    """Every (input, tap, output) triple of the forward sum occurs once among the phases, and nothing else."""
    for size, low, high in ((11, 0, 0), (9, 2, 1), (4, 7, 5), (1, 8, 20), (40, 0, 3)):
        out = (size + low + high - dilation * (taps - 1) - 1) // stride + 1
        if out < 1:
            continue
        forward = {
            (o * stride - low + t * dilation, t, o)
            for o in range(out)
            for t in range(taps)
            if 0 <= o * stride - low + t * dilation < size
        }
        backward, places = set(), []
        for a in geometry._phases(size, out, stride, low, dilation, taps):
            for i in range(a.count):
                places.append(a.place_first + i * a.place_step)
                for t in range(a.taps):
                    o = i * a.stride + a.origin + t * a.step
                    if 0 <= o < out:
                        backward.add((places[-1], a.tap_first + t * a.tap_step, o))
        assert backward == forward
        assert sorted(places) == list(range(size))


# -- limits of the TMA unit ----------------------------------------------------------------------------------

IMAGE = maps.Im2col(1 << 20, "bf16", (64, 9, 7, 2), (128, 1152, 8064), (-1, -1), (-1, -1), (1, 1), 128, 64)


@pytest.mark.parametrize(
    "change, reason",
    [
        (dict(), None),
        (dict(address=(1 << 20) + 8), "multiple of 16 bytes"),
        (dict(strides=(120, 1152, 8064)), "multiples of 16 bytes"),
        (dict(lower=(-129, 0)), "corners"),
        (dict(upper=(0, 128)), "corners"),
        (dict(lower=(-128, -1), upper=(127, -1)), None),
        (dict(traversal=(9, 1)), "stride of at most 8"),
        (dict(pixels=2048), "exceeds"),
        (dict(sizes=(64, 9, 7, 0)), "sizes"),
        (dict(sizes=(64, 9, 7, 3, 2), strides=(128, 1152, 8064, 24192), lower=(-17, 0, 0), upper=(0, 0, 0),
              traversal=(1, 1, 1)), "corners"),
    ],
)  # fmt: skip
def test_im2col_limits(change, reason):
    refused = IMAGE._replace(**change).refused()
    assert refused is None if reason is None else reason in refused


def test_tile_limits():
    tile = maps.Tile(1 << 20, "f32", 64, 40, 256, (32, 128))
    assert tile.refused() is None
    assert "128 bytes" in tile._replace(box=(33, 128)).refused()
    assert "exceeds" in tile._replace(box=(32, 257)).refused()
    assert "multiples of 16" in tile._replace(stride=260).refused()


# -- the cache -----------------------------------------------------------------------------------------------

KERNEL = igemm_sm90.kernel("bf16", bn=64)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCONV_CUDA_CACHE", str(tmp_path / "cubins"))
    monkeypatch.setattr(_cache, "_memory", {})
    return tmp_path / "cubins"


class Builder:
    """Stands for the compiler and counts its runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, kernel, arch):
        self.runs += 1
        return f"code of {kernel.name} for {arch}".encode() + b"\n\x00\xff", f"_Z{kernel.name}"


def test_cache_keeps_code(cache, monkeypatch):
    build = Builder()
    first = _cache.cubin(KERNEL, 90, build, "tools")
    assert _cache.cubin(KERNEL, 90, build, "tools") == first and build.runs == 1
    monkeypatch.setattr(_cache, "_memory", {})  # another process
    assert _cache.cubin(KERNEL, 90, build, "tools") == first and build.runs == 1
    assert [p.suffix for p in cache.iterdir()] == [".cubin"]  # no temporary file stays


def test_cache_key_has_all_that_matters(cache):
    build = Builder()
    changed = [(KERNEL, 90, "a"), (KERNEL, 90, "b"), (KERNEL, 100, "a"), (KERNEL._replace(blocks=2), 90, "a")]
    changed += [
        (KERNEL._replace(source=KERNEL.source + "\n"), 90, "a"),
        (KERNEL._replace(operations=()), 90, "a"),
    ]
    for kernel, arch, tools in changed:
        _cache.cubin(kernel, arch, build, tools)
    assert build.runs == len(changed) == len({_cache.key(*entry) for entry in changed})


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:], lambda b: b + b"x"]
)
def test_damaged_entries_are_built_again(cache, monkeypatch, damage):
    build = Builder()
    good = _cache.cubin(KERNEL, 90, build, "tools")
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(_cache, "_memory", {})
    assert _cache.cubin(KERNEL, 90, build, "tools") == good and build.runs == 2
    assert _cache.read(path) == good


def test_unwritable_folder_is_no_error(cache):
    cache.write_text("a file where the folder should be")
    build = Builder()
    assert _cache.cubin(KERNEL, 90, build, "tools")[1] == f"_Z{KERNEL.name}"


def test_no_home_is_no_error(monkeypatch):
    monkeypatch.delenv("FASTCONV_CUDA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(_cache, "_memory", {})

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_cache.Path, "home", nowhere)
    build = Builder()
    assert _cache.folder() is None
    assert _cache.cubin(KERNEL, 90, build, "tools") == _cache.cubin(KERNEL, 90, build, "tools")
    assert build.runs == 1


def _write_often(path, number):
    for _ in range(50):
        _cache.write(path, bytes([number]) * 100_000, f"_Z{number}")


def test_many_writers_leave_a_whole_entry(cache):
    path = cache / "entry.cubin"
    writers = [multiprocessing.Process(target=_write_often, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = _cache.read(path)
        if found is not None:
            code, name = found
            assert len(code) == 100_000 and set(code) == {int(name[2:])}
            seen.add(name)
    assert all(writer.exitcode == 0 for writer in writers) and seen
    assert [p.name for p in cache.iterdir()] == ["entry.cubin"]


def test_code_that_the_driver_refuses_is_built_again(cache):
    library = FakeLibrary()
    library.do_cuLibraryLoadData = lambda module, code, *rest: 200 if code.value == b"stale" else 0
    runner = _launch.Runner(_driver.Driver(library), build=Builder(), toolchain="tools")
    path = cache / f"{_cache.key(SMALL, 90, 'tools')}.cubin"
    _cache.write(path, b"stale", "_Zstale")
    assert runner.handle(SMALL) == 4242
    assert _cache.read(path)[1] == f"_Z{SMALL.name}"


def test_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("FASTCONV_CUDA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "x")
    assert _cache.folder().parts[-3:] == ("x", "fastconv", "cuda")


# -- the launch path with a driver that is none --------------------------------------------------------------


class FakeLibrary:
    """libcuda as far as `_driver` uses it: records calls, reads the packed parameters of a launch."""

    def __init__(self, status=0):
        self.calls, self.status, self.encodings = [], status, []
        self.cuLaunchKernelEx = FakeLaunch(self)

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, arguments))
            known = vars(self).get(f"do_{name}") or vars(type(self)).get(f"do_{name}")
            if known is None:
                return 0
            return known(*arguments) if f"do_{name}" in vars(self) else known(self, *arguments)

        return call

    def do_cuDeviceGetAttribute(self, value, number, device):
        value._obj.value = {16: 132, 75: 9, 76: 0, 97: 227 * 1024}[number]
        return 0

    def do_cuLibraryGetKernel(self, kernel, module, name):
        kernel._obj.value = 4242
        return 0

    def do_cuTensorMapEncodeTiled(self, target, kind, rank, address, sizes, strides, box, step, *tail):
        self.encodings.append((kind, rank, address.value, list(sizes), list(strides), list(box), tail))
        ctypes.memset(target.value, 0x11, 128)
        assert target.value % 64 == 0
        return 0

    def do_cuTensorMapEncodeIm2col(
        self, target, kind, rank, address, sizes, strides, lower, upper, channels, pixels, *rest
    ):
        self.encodings.append(
            (
                kind,
                rank,
                address.value,
                list(sizes),
                list(strides),
                list(lower),
                list(upper),
                channels,
                pixels,
            )
        )
        ctypes.memset(target.value, 0x22, 128)
        return 0


class FakeLaunch:
    """cuLaunchKernelEx: keeps the values that the driver would have read."""

    def __init__(self, library):
        self.library, self.seen, self.sizes = library, [], None

    def __call__(self, config, handle, packed, extra):
        c = _launch.Config.from_address(config)
        assert extra is None and c.attributes is None and c.count == 0
        pointers = (ctypes.c_void_p * len(self.sizes)).from_address(packed)
        values = [ctypes.string_at(p, size) for p, size in zip(pointers, self.sizes)]
        self.seen.append((handle, (c.gx, c.gy, c.gz), (c.bx, c.by, c.bz), c.shared, c.stream, values))
        return self.library.status


TILE = maps.Tile(Pointer("weight"), "bf16", 64, 40, 128, (64, 64))
SMALL = igemm_sm90.Kernel("small", "", "MPPIF", (), 256, 100_000, 90)
PROGRAM = Program(
    (Step(SMALL, (7, 2), (TILE, Pointer("x", 64), Pointer("scratch0"), -3, 0.5)),), (("scratch0", 512),)
)


def prepared(library):
    library.cuLaunchKernelEx.sizes = (128, 8, 8, 4, 4)
    runner = _launch.Runner(_driver.Driver(library), build=Builder(), toolchain="tools")
    return runner, runner.prepare(PROGRAM)


def test_parameters_are_packed(cache):
    library = FakeLibrary()
    runner, program = prepared(library)
    assert runner.arch == 90 and runner.attributes["multiprocessors"] == 132
    program(dict(weight=1 << 40, x=1 << 41, scratch0=256), 77)
    program(dict(weight=1 << 40, x=1 << 42, scratch0=512), 78)
    first, second = library.cuLaunchKernelEx.seen
    assert first[:5] == (4242, (7, 2, 1), (256, 1, 1), 100_000, 77) and second[4] == 78
    assert first[5][0] == b"\x11" * 128
    assert [int.from_bytes(v, "little") for v in first[5][1:3]] == [(1 << 41) + 64, 256]
    assert np.frombuffer(first[5][3], np.int32)[0] == -3 and np.frombuffer(first[5][4], np.float32)[0] == 0.5
    assert int.from_bytes(second[5][1], "little") == (1 << 42) + 64
    assert len(library.encodings) == 1  # the weight did not move


def test_shared_memory_limit_is_raised(cache):
    library = FakeLibrary()
    runner, _ = prepared(library)
    (call,) = [arguments for name, arguments in library.calls if name == "cuKernelSetAttribute"]
    assert (*call[:2], call[2].value) == (8, 100_000, 4242)
    with pytest.raises(DeviceError, match="needs 300000 bytes of shared memory"):
        runner.handle(SMALL._replace(shared=300_000))


def test_maps_are_encoded_as_documented_and_kept(cache):
    library = FakeLibrary()
    known = _launch.Maps(_driver.Driver(library), kept=2)
    tiles = [resolved(TILE, {"weight": address}) for address in (1 << 20, 1 << 21, 1 << 22)]
    for tile in (*tiles[:2], tiles[0], tiles[2], tiles[0]):
        assert known.bytes_of(tile) == b"\x11" * 128
    assert len(library.encodings) == 3 and len(known.known) == 2
    assert library.encodings[0] == (9, 2, 1 << 20, [64, 40], [128], [64, 64], (0, 3, 3, 0))
    assert known.bytes_of(IMAGE) == b"\x22" * 128
    expected = (9, 4, 1 << 20, [64, 9, 7, 2], [128, 1152, 8064], [-1, -1], [-1, -1], 64, 128)
    assert library.encodings[-1] == expected
    with pytest.raises(DeviceError, match="tensor map: needs an address"):
        known.bytes_of(IMAGE._replace(address=8))


def test_driver_errors_are_device_errors(cache):
    library = FakeLibrary()
    _, program = prepared(library)
    library.status = 700
    with pytest.raises(DeviceError, match="cuLaunchKernelEx failed with CUDA error 700"):
        program(dict(weight=1 << 40, x=0, scratch0=0), 0)


def test_emulated_programs_name_all_their_buffers():
    assert resolved(Pointer("x", 8), {"x": 16}) == 24
    assert resolved(TILE, {"weight": 1 << 20}).address == 1 << 20 and resolved(3, {}) == 3
    assert PROGRAM.scratch_bytes == 512
