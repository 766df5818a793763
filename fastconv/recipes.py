"""Whole training runs with their settings fixed, as the command line offers them."""

import importlib.util
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import data, io, models, optim, train


@dataclass
class Result:
    """What a recipe returns. `accuracy` is measured once, at the end, on the held-out part."""

    accuracy: float
    model: object
    history: list
    confusion: np.ndarray
    predictions: np.ndarray
    held_out: tuple
    seconds: float
    files: list = field(default_factory=list)


def train_lenet5(data_dir=None, seed=0, epochs=None, out_dir=None, resume=False, progress=True):
    """Train LeNet-5 on the bundled digits, or the MNIST files in `data_dir`; measure it on the held-out part.

    Digits: a fifth, drawn from the seed with equal shares of the classes, is held out; the scans are enlarged
    from 8x8 to 32x32. MNIST: the test files are held out; the images get a border of 2 zeros. A tenth of the
    rest is the validation part that the learning curve shows. Nothing is chosen by the held-out part. Same
    seed, same bits.

    SGD with Nesterov momentum 0.9, batches of 64, cosine decay from 0.05, L2 of 5e-4, images turned by up to
    10 degrees, scaled by up to 10 % and shifted by up to 2 pixels. These were chosen on validation parts cut
    from training parts.

    Parameters
    ----------
    epochs : int
        Default 75 for the digits, 5 for MNIST.
    out_dir : path, optional
        Where the model, the checkpoint, the history and three pictures go; nothing is written without it.
        Files are .safetensors where that package is installed and .npz otherwise; pictures need matplotlib.
    resume : bool
        Continue from the checkpoint in `out_dir`.
    progress : bool
        Report on standard error.

    Returns a `Result`.
    """
    start = time.perf_counter()
    for_split, for_model, for_fit = np.random.SeedSequence(seed).spawn(3)
    (x, y), held_out = _digits(np.random.default_rng(for_split)) if data_dir is None else _mnist(data_dir)
    if epochs is None:
        epochs = 75 if data_dir is None else 5

    files, checkpoint = [], None
    if out_dir is not None:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        suffix = ".safetensors" if importlib.util.find_spec("safetensors") else ".npz"
        checkpoint = Path(out_dir) / f"checkpoint{suffix}"

    model = models.lenet5(rng=np.random.default_rng(for_model))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    history = train.fit(
        model,
        (x, y),
        epochs=epochs,
        optimizer=optimizer,
        batch_size=64,
        validation=0.1,
        schedule=train.cosine(warmup=0.05),
        augment=data.random_affine,
        seed=int(for_fit.generate_state(1)[0]),
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    result = train.evaluate(model, held_out)
    labels, predictions = held_out[1], result.predictions
    confusion = train.confusion_matrix(labels, predictions, classes=10)

    if out_dir is not None:
        files = [checkpoint, Path(out_dir) / f"lenet5{suffix}", Path(out_dir) / "history.json"]
        io.save(files[1], model)
        files[2].write_text(json.dumps(history, indent=1) + "\n")
        title = f"LeNet-5, seed {seed}: {100 * result.accuracy:.2f} % of {len(labels)} held-out images"
        files += _pictures(
            Path(out_dir), history, confusion, held_out[0], labels, predictions, title, progress
        )
    return Result(
        result.accuracy, model, history, confusion, predictions, held_out, time.perf_counter() - start, files
    )


def _digits(rng):
    x, y = data.digits()
    return data.stratified_split(data.resize(x, (32, 32)), y, 0.2, rng)


def _mnist(directory):
    parts = []
    for split in ("train", "test"):
        x, y = data.mnist(directory, split)
        if x.shape[2:] != (28, 28) or y.max() > 9:
            raise ValueError(
                f"{directory}: {split} images are {x.shape[2]}x{x.shape[3]}, labels up to {y.max()} "
                "(need 28x28 and 0 to 9)"
            )
        parts.append((np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), y))
    return parts


def _pictures(folder, history, confusion, images, labels, predictions, title, progress):
    from . import _plots

    paths = [folder / name for name in ("learning_curve.png", "confusion_matrix.png", "samples.png")]
    try:
        _plots.learning_curve(paths[0], history, title)
    except ImportError as error:
        if progress:
            print(f"no pictures: {error}", file=sys.stderr)
        return []
    _plots.confusion_matrix(paths[1], confusion, title)
    _plots.samples(paths[2], images, labels, predictions, title)
    return paths
