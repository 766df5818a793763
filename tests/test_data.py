"""fastconv.data: bundled digits, MNIST and CIFAR-10 files, sound and damaged, splits, batches, images."""

import gzip
import struct

import numpy as np
import pytest

from fastconv import data


def idx(array, code=0x08):
    """The bytes of an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_dir(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 7), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_digits_are_the_uci_test_writers():
    x, y = data.digits()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == np.float32 and y.dtype == np.int64
    assert x.min() == 0 and x.max() == 1
    # The counts of the classes that UCI states for the test part.
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    stored, _ = data.digits(dtype=np.uint8)
    assert stored.max() == 16 and np.array_equal(x * 16, stored)
    # The first scan, a zero, row by row.
    assert stored[0, 0].tolist() == [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]


def test_mnist_plain_and_gzipped(mnist_dir):
    x, y = data.mnist(mnist_dir)
    assert x.shape == (7, 1, 28, 28) and y.shape == (7,) and y.dtype == np.int64
    stored, _ = data.mnist(str(mnist_dir), "train", dtype=np.uint8)
    assert np.array_equal(x, stored.astype(np.float32) / 255)
    assert len(data.mnist(mnist_dir, "test")[0]) == 3


@pytest.mark.parametrize(
    "code, dtype", [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_idx_types(tmp_path, code, dtype):
    array = np.arange(-6, 6).astype(dtype).reshape(3, 4)
    (tmp_path / "a").write_bytes(idx(array, code))
    result = data.read_idx(tmp_path / "a")
    assert (
        np.array_equal(result, array)
        and result.dtype == array.dtype.newbyteorder("=")
        and result.flags.writeable
    )


SOUND = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "need the IDX magic number"),
        (b"\x89PNG\r\n", "starts with 89504e47"),
        (b"\0\0\x07\x01\0\0\0\0", "starts with 00000701"),
        (SOUND[:9], "ends within its header"),
        (SOUND[:-1], "has 11 bytes of values, shape .3, 4. of uint8 needs 12"),
        (SOUND + b"\0", "has 13 bytes of values"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "has 0 bytes of values"),
        (gzip.compress(SOUND, mtime=0)[:-9], "damaged gzip data"),
        (gzip.compress(SOUND, mtime=0)[:15] + b"\xff\xff\xff" + gzip.compress(SOUND, mtime=0)[18:], "damaged gzip data"),
        (b"\x1f\x8b" + SOUND, "damaged gzip data"),
    ],
)
def test_damaged_idx(tmp_path, raw, message):
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(ValueError, match=f"file: .*{message}"):
        data.read_idx(tmp_path / "file")


def test_mnist_faults(mnist_dir):
    with pytest.raises(ValueError, match="split is 'valid' .need 'train' or 'test'"):
        data.mnist(mnist_dir, "valid")
    (mnist_dir / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(6, np.uint8)))
    with pytest.raises(ValueError, match="7 images, but .* has 6 labels"):
        data.mnist(mnist_dir)
    (mnist_dir / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((7, 28), np.uint8)))
    with pytest.raises(ValueError, match="holds uint8 with 2 axes .need uint8 with 3"):
        data.mnist(mnist_dir)
    (mnist_dir / "train-images-idx3-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError, match="none of train-images-idx3-ubyte, train-images-idx3-ubyte.gz"
    ):
        data.mnist(mnist_dir)


def test_cifar10(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (12, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(
            records[2 * number : 2 * number + 2].tobytes()
        )
    (tmp_path / "test_batch.bin").write_bytes(records[10:].tobytes())
    x, y = data.cifar10(tmp_path, dtype=np.uint8)
    assert x.shape == (10, 3, 32, 32) and np.array_equal(y, records[:10, 0])
    # Red, green, blue planes, row by row.
    assert x[3, 1, 2, 5] == records[3, 1 + 1024 + 2 * 32 + 5]
    x, y = data.cifar10(tmp_path, "test")
    assert x.dtype == np.float32 and np.array_equal(y, records[10:, 0]) and x.max() <= 1

    (tmp_path / "test_batch.bin").write_bytes(records[10:].tobytes()[:-1])
    with pytest.raises(ValueError, match="test_batch.bin: has 6145 bytes .need a positive multiple of 3073"):
        data.cifar10(tmp_path, "test")
    records[11, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(records[10:].tobytes())
    with pytest.raises(ValueError, match="test_batch.bin: record 1 has label 10"):
        data.cifar10(tmp_path, "test")
    with pytest.raises(ValueError, match="split is 'all'"):
        data.cifar10(tmp_path, "all")
    with pytest.raises(TypeError, match="dtype is float16 .need float32, float64 or uint8"):
        data.cifar10(tmp_path, dtype=np.float16)


def test_stratified_split():
    x, y = data.digits()
    (x1, y1), (x2, y2) = data.stratified_split(x, y, 0.2, rng=3)
    assert len(x1) == len(y1) == 1437 and len(x2) == len(y2) == 360
    # Every class within one sample of its share, and nothing lost or twice.
    assert np.all(np.abs(np.bincount(y2) - 0.2 * np.bincount(y)) < 1)
    together = np.concatenate([x1, x2]).reshape(1797, -1)
    assert np.array_equal(np.sort(together, axis=0), np.sort(x.reshape(1797, -1), axis=0))
    again = data.stratified_split(x, y, 0.2, rng=3)[1]
    other = data.stratified_split(x, y, 0.2, rng=4)[1]
    assert np.array_equal(again[0], x2) and not np.array_equal(other[0], x2)
    for bad, message in (
        ((x, y[:5], 0.2), "1797 samples, y 5"),
        ((x, y, 1.0), "fraction is 1.0"),
        ((x, y / 2, 0.2), "dtype float64 .need integers"),
    ):
        with pytest.raises(ValueError, match=message):
            data.stratified_split(*bad)


def test_batches():
    x, y = np.arange(10), np.arange(10) * 10
    parts = list(data.batches(x, y, 4))
    assert [part.tolist() for part, _ in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert np.shares_memory(parts[0][0], x)
    assert [len(part) for part, _ in data.batches(x, y, 4, drop_last=True)] == [4, 4]
    shuffled = list(data.batches(x, y, 3, shuffle=True, rng=0))
    assert all(np.array_equal(10 * part, target) for part, target in shuffled)
    order = np.concatenate([part for part, _ in shuffled])
    assert sorted(order) == list(range(10)) and order.tolist() != list(range(10))
    with pytest.raises(ValueError, match="x has 10 samples, y 9"):
        data.batches(x, y[:9], 3)  # at the call, not at the first batch
    with pytest.raises(ValueError, match="batch_size is 0"):
        data.batches(x, y, 0)


def test_resize_by_hand():
    image = np.array([[0.0, 4.0]])
    # Centres of the 4 new pixels in the old ones: -0.25 -> 0 at the border, 0.25, 0.75, 1.25 -> 1.
    assert data.resize(image, (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert data.resize(image, (2, 2)).tolist() == [[0, 4], [0, 4]]
    assert data.resize(np.ones((2, 3, 1, 1), np.float32), (3, 2)).shape == (2, 3, 3, 2)
    with pytest.raises(TypeError, match="dtype uint8 .need float32 or float64"):
        data.resize(image.astype(np.uint8), (2, 2))


def test_resize_equals_torch():
    functional = pytest.importorskip("torch.nn.functional")
    import torch

    # Dyadic shares and integers: the sums are exact, so both must be equal.
    x = np.random.default_rng(0).integers(-8, 9, (2, 3, 8, 4)).astype(np.float32)
    expected = functional.interpolate(torch.tensor(x), (32, 8), mode="bilinear", align_corners=False).numpy()
    assert np.array_equal(data.resize(x, (32, 8)), expected)


def test_random_affine():
    x = np.random.default_rng(0).random((5, 2, 9, 12), dtype=np.float32)
    assert np.array_equal(data.random_affine(x, 0, rotate=0, scale=0, shift=0), x)
    moved = data.random_affine(x, 7)
    assert moved.shape == x.shape and moved.dtype == x.dtype and not np.array_equal(moved, x)
    assert np.array_equal(data.random_affine(x, 7), moved)


def test_affine_by_hand():
    square = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    shifted = data.affine(square, [0], [1], [[1], [0]])[0, 0]
    assert (
        np.array_equal(shifted[:3], square[0, 0, 1:]) and not shifted[3].any()
    )  # from below; zeros from outside
    half = data.affine(square, [0], [1], [[0], [0.5]])[0, 0]
    assert half[1].tolist() == [4.5, 5.5, 6.5, 3.5]
    wide = data.affine(square, [0], [2], [[0], [0]])[0, 0]
    assert wide[1].tolist() == [
        0,
        (0 + 1 + 4 + 5) / 4,
        (2 + 3 + 6 + 7) / 4,
        0,
    ]  # twice as far out: half the size
    # A quarter turn: cos and sin are off by an eps or two, which moves values of at most 15 by so many times
    # as much.
    turned = data.affine(square, [90], [1], [[0], [0]])[0, 0]
    assert np.abs(turned - np.rot90(square[0, 0], -1)).max() <= 16 * 16 * np.finfo(np.float32).eps
