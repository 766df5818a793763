"""Data for training: bundled digits, readers for MNIST and CIFAR-10 files, splits, batches, image helpers.

Images come as `(N, C, H, W)` and labels as int64 `(N,)`. `dtype=np.float32` or `np.float64` gives pixels from
0 to 1, `dtype=np.uint8` the numbers that are stored. A damaged file is a ValueError that says what is wrong
with it; a missing one is a FileNotFoundError. Whatever is drawn at random takes `rng`, a `Generator` or a
seed.
"""

import gzip
import importlib.resources
import math
import zlib
from pathlib import Path

import numpy as np

from . import _arithmetic as arithmetic

# ---- readers -----------------------------------------------------------------------------------------------


def digits(dtype=np.float32):
    """1,797 real scans of handwritten digits: images `(1797, 1, 8, 8)`, stored values 0 to 16, and labels.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0. These are its 13 test writers, as in
    scikit-learn's `load_digits`.
    """
    folder = importlib.resources.files("fastconv") / "datasets"
    images = _parse_idx((folder / "digits-images-idx3-ubyte.gz").read_bytes(), "the bundled digits")
    labels = _parse_idx((folder / "digits-labels-idx1-ubyte.gz").read_bytes(), "the bundled digits")
    return _pixels(images[:, None], 16, dtype), labels.astype(np.int64)


def mnist(directory, split="train", dtype=np.float32):
    """MNIST, or any set in its files, from `directory`: images `(N, 1, 28, 28)` and labels.

    Reads `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (`t10k-...` for `split="test"`), with or
    without `.gz`, also spelt `train-images.idx3-ubyte`. Source of the format: LeCun, Cortes, Burges, the
    MNIST database.
    """
    prefix = {"train": "train", "test": "t10k"}.get(split)
    if prefix is None:
        raise ValueError(f"mnist: split is {split!r} (need 'train' or 'test')")
    image_path = _find(directory, f"{prefix}-images", "idx3-ubyte")
    label_path = _find(directory, f"{prefix}-labels", "idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    for path, array, ndim in ((image_path, images, 3), (label_path, labels, 1)):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise ValueError(f"{path}: holds {array.dtype} with {array.ndim} axes (need uint8 with {ndim})")
    if len(images) != len(labels):
        raise ValueError(
            f"{image_path}: {len(images)} images, but {label_path} has {len(labels)} labels (need as many)"
        )
    return _pixels(images[:, None], 255, dtype), labels.astype(np.int64)


def _find(directory, stem, kind):
    names = [f"{stem}{joint}{kind}{end}" for joint in "-." for end in ("", ".gz")]
    for name in names:
        if (Path(directory) / name).is_file():
            return Path(directory) / name
    raise FileNotFoundError(f"mnist: {Path(directory)} has none of {', '.join(names)}")


_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path):
    """The array in an IDX file, plain or gzipped, with the shape and type it names (native byte order)."""
    return _parse_idx(Path(path).read_bytes(), str(path))


def _parse_idx(raw, source):
    """IDX: two zero bytes, a type code, the number of axes, their sizes (big-endian uint32), the values."""
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{source}: damaged gzip data ({error})") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise ValueError(
            f"{source}: starts with {raw[:4].hex() or 'nothing'} (need the IDX magic number, "
            "such as 00000803 for images or 00000801 for labels)"
        )
    dtype, ndim = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"{source}: ends within its header ({len(raw)} bytes, need {start})")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    size = math.prod(shape) * dtype.itemsize
    if len(raw) - start != size:
        raise ValueError(
            f"{source}: has {len(raw) - start} bytes of values, shape {shape} of {dtype.name} needs {size}"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


_CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(directory, split="train", dtype=np.float32):
    """CIFAR-10 from its binary files in `directory`: RGB images `(N, 3, 32, 32)` and labels.

    Reads `data_batch_1.bin` to `data_batch_5.bin`, or `test_batch.bin` for `split="test"`.
    Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
    """
    if split not in ("train", "test"):
        raise ValueError(f"cifar10: split is {split!r} (need 'train' or 'test')")
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    parts = [read_cifar10(Path(directory) / name) for name in names]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return _pixels(images, 255, dtype), labels.astype(np.int64)


def read_cifar10(path):
    """Images (N, 3, 32, 32) and labels (N,), uint8, of a CIFAR-10 file: a label and 3072 pixels each."""
    raw = np.frombuffer(Path(path).read_bytes(), np.uint8)
    if len(raw) == 0 or len(raw) % _CIFAR10_RECORD:
        raise ValueError(f"{path}: has {len(raw)} bytes (need a positive multiple of {_CIFAR10_RECORD})")
    records = raw.reshape(-1, _CIFAR10_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(
            f"{path}: record {int(records[:, 0].argmax())} has label {records[:, 0].max()} (need 0 to 9)"
        )
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _pixels(values, top, dtype):
    """uint8 `values` as they are, or scaled from 0..top to 0..1."""
    if np.dtype(dtype) == np.uint8:
        return values
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"data: dtype is {np.dtype(dtype)} (need float32, float64 or uint8)")
    return values.astype(dtype) / top


# ---- splits and batches ------------------------------------------------------------------------------------


def need_arrays(who, **values):
    """TypeError unless every value is an array with a first axis, of samples."""
    for name, value in values.items():
        if not getattr(value, "shape", ()):
            raise TypeError(f"{who}: {name} is {type(value).__name__} (need an array of samples: np.asarray)")


def stratified_split(x, y, fraction, rng=None):
    """Cut `(x, y)` at random in two, every class of the integer labels `y` in the same proportion.

    Returns `(x1, y1), (x2, y2)`; the second has ceil(fraction * N) samples, and both keep the original order.
    """
    need_arrays("stratified_split", x=x, y=y)
    if len(x) != len(y):
        raise ValueError(f"stratified_split: x has {len(x)} samples, y {len(y)} (need as many)")
    if y.ndim != 1 or arithmetic.kind(y) not in "iu":
        raise ValueError(
            f"stratified_split: y has shape {y.shape} and dtype {y.dtype} (need integers, one axis)"
        )
    if not 0 < fraction < 1:
        raise ValueError(f"stratified_split: fraction is {fraction} (need 0 < fraction < 1)")
    rng = np.random.default_rng(rng)
    labels = arithmetic.to_host(y)
    counts = np.unique(labels, return_counts=True)[1]
    take = np.floor(fraction * counts).astype(int)
    # The classes whose share was rounded down most get one more, until the total is right.
    rest = math.ceil(fraction * len(y)) - take.sum()
    take[np.argsort(take - fraction * counts, kind="stable")[:rest]] += 1
    second = np.zeros(len(y), bool)
    for label, size in zip(np.unique(labels), take):
        second[rng.permutation(np.flatnonzero(labels == label))[:size]] = True
    return tuple(rows_of(x, y, np.flatnonzero(part)) for part in (~second, second))


def rows_of(x, y, order):
    """(x[order], y[order]), wherever they live."""
    return tuple(arithmetic.take(array, arithmetic.order_like(array, order)) for array in (x, y))


def batches(x, y, batch_size=64, *, shuffle=False, rng=None, drop_last=False):
    """Iterate over `(x[part], y[part])` of `batch_size` samples; the last may be smaller, unless `drop_last`.

    In order as views; with `shuffle=True` in an order drawn from `rng`, as copies.
    """
    need_arrays("batches", x=x, y=y)
    if len(x) != len(y):
        raise ValueError(f"batches: x has {len(x)} samples, y {len(y)} (need as many)")
    if batch_size < 1:
        raise ValueError(f"batches: batch_size is {batch_size} (need >= 1)")
    order = np.random.default_rng(rng).permutation(len(x)) if shuffle else None
    orders = [None if order is None else arithmetic.order_like(array, order) for array in (x, y)]
    end = len(x) - len(x) % batch_size if drop_last else len(x)

    def generate():
        for start in range(0, end, batch_size):
            part = slice(start, min(start + batch_size, end))
            rows = [part if order is None else order[part] for order in orders]
            yield arithmetic.take(x, rows[0]), arithmetic.take(y, rows[1])

    return generate()


# ---- images ------------------------------------------------------------------------------------------------


def resize(images, size):
    """`images (..., H, W)` at `size = (height, width)`, bilinear.

    Pixel centres sit at half-integers and the border is repeated, as in `torch.nn.functional.interpolate`
    with `align_corners=False`. Sums run element by element, not through a matrix product, so that the bits
    are the same everywhere.
    """
    _need_real(images, "resize")
    for axis, length in ((-2, size[0]), (-1, size[1])):
        old = images.shape[axis]
        centre = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, old - 1)
        low = np.minimum(centre.astype(int), max(old - 2, 0))
        share = (centre - low).astype(images.dtype).reshape((-1, 1) if axis == -2 else (-1,))
        lower, upper = (np.take(images, np.minimum(index, old - 1), axis) for index in (low, low + 1))
        images = lower * (1 - share) + upper * share
    return images


def random_affine(images, rng=None, *, rotate=10.0, scale=0.1, shift=2.0):
    """Every image of `images (N, C, H, W)` turned, scaled and shifted a little, to make more data of them.

    Angles are uniform in +-`rotate` degrees, scales in 1+-`scale`, shifts in +-`shift` pixels along each
    axis, about the centre; bilinear, zeros from outside. One draw per image, in the order angles, scales,
    shifts.
    """
    _need_real(images, "random_affine")
    rng, count = np.random.default_rng(rng), len(images)
    return affine(
        images,
        rng.uniform(-rotate, rotate, count),
        rng.uniform(1 - scale, 1 + scale, count),
        rng.uniform(-shift, shift, (2, count)),
    )


def affine(images, angle, zoom, move):
    """Every image of `images (N, C, H, W)` seen through a map of its own, bilinear, zeros from outside.

    The output pixel at distance (down, right) from the centre shows the input at
    zoom * rotation(angle) (down, right) + move. `angle` in degrees and `zoom` are `(N,)`, `move` `(2, N)` in
    pixels.
    """
    count, channels, height, width = images.shape
    angle, zoom, move = (np.asarray(value, np.float64)[..., None, None] for value in (angle, zoom, move))
    cos, sin = ((zoom * turn(np.deg2rad(angle))).astype(np.float32) for turn in (np.cos, np.sin))
    move = move.astype(np.float32)
    down = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    right = np.arange(width, dtype=np.float32) - (width - 1) / 2

    # Where each output pixel comes from. One pixel of zeros all around stands for everything outside.
    row = np.clip(cos * down - sin * right + (move[0] + (height - 1) / 2), -1, height)
    column = np.clip(sin * down + cos * right + (move[1] + (width - 1) / 2), -1, width)
    top = np.minimum(np.floor(row), height - 1)
    left = np.minimum(np.floor(column), width - 1)
    lower, righter = (row - top).astype(images.dtype), (column - left).astype(images.dtype)
    stride = width + 2
    at = (top.astype(np.intp) + 1) * stride + left.astype(np.intp) + 1
    at += np.arange(count)[:, None, None] * ((height + 2) * stride)

    result = np.empty_like(images, order="C")
    for channel in range(channels):
        plane = np.pad(images[:, channel], ((0, 0), (1, 1), (1, 1))).ravel()
        upper = plane[at] * (1 - righter) + plane[at + 1] * righter
        under = plane[at + stride] * (1 - righter) + plane[at + stride + 1] * righter
        result[:, channel] = upper * (1 - lower) + under * lower
    return result


def _need_real(images, name):
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: images have dtype {images.dtype} (need float32 or float64)")
