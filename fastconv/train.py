"""Training loops: `fit`, `evaluate`, learning-rate schedules, the confusion matrix.

Same seed, same bits: everything random in a run comes from the seed of `fit` and the generators of the
model's own layers, and both are part of a checkpoint, so that a resumed run ends with the bits of an
uninterrupted one. Progress goes to standard error.

A model that was moved to a device (`model.to("cuda")`) is trained on data that live there too
(`fastconv.cuda.to_device`). Nothing is then copied from step to step: batches are gathered on the device by
an order that is copied once an epoch, the optimiser updates in place, and losses are read when the epoch is
over, as are the range checks of targets.
"""

import contextlib
import math
import signal
import sys
import threading
import time
from typing import NamedTuple

import numpy as np

from . import _arithmetic as arithmetic
from . import io, nn, optim
from .data import batches, need_arrays, rows_of, stratified_split

# ---- schedules: a function from the part of the training that is done, 0 to 1, to a factor of the learning r


def cosine(warmup=0.05):
    """Up in a straight line during the first `warmup` part, then down to 0 along half a cosine.

    Source: Loshchilov and Hutter, "SGDR" (2016).
    """

    def factor(done):
        if done < warmup:
            return done / warmup
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    return factor


def steps(*at, factor=0.1):
    """Times `factor` at each of the given parts of the training: `steps(0.5, 0.75)`."""
    return lambda done: factor ** sum(done >= place for place in at)


# ---- evaluation --------------------------------------------------------------------------------------------


class Evaluation(NamedTuple):
    """Mean loss, share of right answers (None where there are no classes), outputs (on the host)."""

    loss: float
    accuracy: float | None
    outputs: np.ndarray

    @property
    def predictions(self):
        """The most likely class of every sample."""
        return self.outputs.argmax(axis=1)


def evaluate(model, data, *, criterion=None, batch_size=256):
    """Predict `data = (x, y)` in batches; returns an `Evaluation`.

    `criterion` defaults to `nn.CrossEntropyLoss()`; its losses must be means. Data and model may be on a
    device; the outputs are copied from there at the end.
    """
    x, y = _pair(data, "evaluate")
    criterion = nn.CrossEntropyLoss() if criterion is None else criterion
    outputs, tally = [], _Tally()
    with arithmetic.deferred_checks(x):
        for part, target in batches(x, y, batch_size):
            outputs.append(model(part))
            tally.add(criterion(outputs[-1], target)[0], outputs[-1], target)
    loss, accuracy = tally.means()
    return Evaluation(loss, accuracy, arithmetic.to_host(arithmetic.concatenate(outputs)))


def confusion_matrix(target, prediction, classes=None):
    """Counts `(classes, classes)`: row = true class, column = predicted class."""
    classes = int(max(np.max(target), np.max(prediction))) + 1 if classes is None else classes
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(target), np.asarray(prediction)), 1)
    return counts


class _Tally:
    """Sums over batches: of the mean losses times the samples, and of right answers where `y` names classes.

    On a device the numbers of every batch stay there until the sums are asked for.
    """

    def __init__(self):
        self.batches = []  # (mean loss, right answers or None, samples)

    def add(self, loss, outputs, y):
        right = None
        if outputs.ndim == 2 and y.ndim == 1 and arithmetic.kind(y) in "iu":
            right = arithmetic.count_right(outputs, y)
        self.batches.append((loss, right, len(outputs)))

    def means(self):
        """(mean loss, share of right answers or None) over all samples."""
        total, hits, count = 0.0, 0, 0
        for loss, right, samples in self.batches:
            total += float(arithmetic.number(loss)) * samples
            hits = None if hits is None or right is None else hits + int(arithmetic.number(right))
            count += samples
        return total / count, None if hits is None else hits / count


def _pair(data, who):
    try:
        x, y = data
    except (TypeError, ValueError):
        raise TypeError(f"{who}: data is {type(data).__name__} (need a pair of arrays, x and y)") from None
    need_arrays(who, x=x, y=y)
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{who}: x has {len(x)} samples, y {len(y)} (need as many, and at least one)")
    return x, y


# ---- training ----------------------------------------------------------------------------------------------


def fit(
    model,
    data,
    *,
    epochs,
    optimizer=None,
    criterion=None,
    batch_size=64,
    validation=None,
    schedule=None,
    augment=None,
    patience=None,
    seed=0,
    checkpoint=None,
    resume=False,
    progress=True,
):
    """Train `model` on `data = (x, y)` and return the history.

    Parameters
    ----------
    model : nn.Module
    data : (x, y)
        Arrays with one sample per row; whatever `model` and `criterion` take.
    epochs, batch_size : int
        Every epoch visits every sample once, in an order drawn from the seed.
    optimizer : Optimizer
        Default `optim.Adam(model.parameters())`. L2 regularisation is its `weight_decay`.
    criterion : callable
        `criterion(output, target) -> (mean loss, gradient)`; default `nn.CrossEntropyLoss()`.
    validation : float or (x, y), optional
        A part of `data` (0.1: a tenth, drawn from the seed, equal shares of the classes) that is not trained
        on but measured after every epoch, or a set of its own.
    schedule : callable, optional
        The learning rate is the optimiser's times `schedule(part done, 0 to 1)`: see `cosine` and `steps`.
    augment : callable, optional
        `augment(x, rng) -> x` changes every training batch, such as `data.random_affine`.
    patience : int, optional
        Early stopping: end when the validation loss has not fallen for so many epochs. The model then gets
        the weights of the best epoch, also when the epochs run out first.
    seed : int, optional
        For the validation part, the order and `augment`; None: another one every time. Layers with `rng` have
        their own.
    checkpoint : path, optional
        A .safetensors or .npz file, rewritten after every epoch, with all that `resume=True` needs to
        continue bit by bit with the same arguments.
    progress : bool
        A bar (with tqdm installed) or a line an epoch on standard error.

    Returns
    -------
    list of dict
        Per epoch: "epoch", "loss", "accuracy" (while training; None without classes), "val_loss",
        "val_accuracy" (None without validation), "lr" (at the end), "seconds".

    Ctrl-C ends the run between two steps with KeyboardInterrupt: the model is whole, and the checkpoint that
    of the last epoch.
    """
    x, y = _pair(data, "fit")
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        if value is not None and value < 1:
            raise ValueError(f"fit: {name} is {value} (need >= 1)")
    if patience is not None and validation is None:
        raise ValueError("fit: patience without validation (need a validation part to watch)")
    if resume and checkpoint is None:
        raise ValueError("fit: resume without checkpoint (need the path of one)")
    optimizer = optim.Adam(model.parameters()) if optimizer is None else optimizer
    criterion = nn.CrossEntropyLoss() if criterion is None else criterion

    seed = np.random.SeedSequence().entropy if seed is None else seed
    for_split, for_loop = np.random.SeedSequence(seed).spawn(2)
    settings = dict(
        samples=len(x),
        batch_size=batch_size,
        seed=seed,
        validation=validation if isinstance(validation, float) else validation is not None,
    )
    if isinstance(validation, float):
        (x, y), validation = _hold_back(x, y, validation, np.random.default_rng(for_split))
    elif validation is not None:
        validation = _pair(validation, "fit: validation")
    run = _Run(model, optimizer, np.random.default_rng(for_loop), settings)
    if resume:
        run.restore(checkpoint)

    per_epoch = -(-len(x) // batch_size)
    with (
        _Progress(epochs * per_epoch, len(run.history) * per_epoch, progress) as bar,
        _interrupt_between_steps() as check,
    ):
        try:
            while len(run.history) < epochs and not run.stopped:
                start, epoch, tally = time.perf_counter(), len(run.history), _Tally()
                with arithmetic.deferred_checks(x):
                    parts = batches(x, y, batch_size, shuffle=True, rng=run.rng)
                    for number, (part, target) in enumerate(parts):
                        if schedule is not None:
                            optimizer.lr = run.lr * schedule((epoch + number / per_epoch) / epochs)
                        part = part if augment is None else augment(part, run.rng)
                        loss, output = _step(model, criterion, optimizer, part, target)
                        tally.add(loss, output, target)
                        bar.advance()
                        check()
                loss, accuracy = tally.means()
                entry = dict(
                    epoch=epoch + 1,
                    loss=loss,
                    accuracy=accuracy,
                    val_loss=None,
                    val_accuracy=None,
                    lr=optimizer.lr,
                )
                if validation is not None:
                    entry["val_loss"], entry["val_accuracy"], _ = evaluate(
                        model, validation, criterion=criterion
                    )
                run.end_epoch({**entry, "seconds": time.perf_counter() - start}, patience)
                bar.epoch(run.history[-1], epochs)
                if checkpoint is not None:
                    run.save(checkpoint)
                check()
        finally:
            optimizer.lr = run.lr
            model.zero_grad()
    if patience is not None and run.best:
        model.load_state_dict(run.best)
    return run.history


def _step(model, criterion, optimizer, x, target):
    """One update of the parameters; returns the mean loss and the outputs before it."""
    output, backward = model.forward(x)
    loss, gradient = criterion(output, target)
    model.zero_grad()
    backward(gradient)
    optimizer.step()
    return loss, output


def _hold_back(x, y, fraction, rng):
    """`data` without the validation part, and that part."""
    if y.ndim == 1 and arithmetic.kind(y) in "iu":
        return stratified_split(x, y, fraction, rng)
    if not 0 < fraction < 1:
        raise ValueError(f"fit: validation is {fraction} (need 0 < validation < 1)")
    order = rng.permutation(len(x))
    parts = np.split(order, [len(x) - math.ceil(fraction * len(x))])
    return tuple(rows_of(x, y, part) for part in parts)


class _Run:
    """All that changes while `fit` runs and that a checkpoint holds."""

    def __init__(self, model, optimizer, rng, settings):
        self.model, self.optimizer, self.rng, self.settings = model, optimizer, rng, settings
        self.lr = optimizer.lr  # before any schedule
        self.history, self.best, self.best_loss, self.stopped = [], {}, math.inf, False

    def end_epoch(self, entry, patience):
        self.history.append(entry)
        if patience is None:
            return
        if entry["val_loss"] < self.best_loss:
            self.best_loss, self.best = entry["val_loss"], self.model.state_dict()
        best_epoch = next((old["epoch"] for old in self.history if old["val_loss"] == self.best_loss), 0)
        self.stopped = entry["epoch"] - best_epoch >= patience

    def _generators(self):
        """The generators of the layers, by name, and the loop's as "fit"."""
        layers = {
            f"model.{name}": module.rng
            for name, module in self.model.named_modules()
            if isinstance(getattr(module, "rng", None), np.random.Generator)
        }
        return {"fit": self.rng, **layers}

    def save(self, path):
        optimizer = self.optimizer.state_dict()
        optimizer_arrays = optimizer.pop("state")
        groups = dict(model=self.model.state_dict(), best=self.best, optimizer=optimizer_arrays)
        io.write(
            path,
            {f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()},
            dict(
                fastconv_checkpoint=1,
                settings=self.settings,
                optimizer=optimizer,
                lr=self.lr,
                history=self.history,
                best_loss=self.best_loss,
                stopped=self.stopped,
                generators={name: _rng_state(rng) for name, rng in self._generators().items()},
            ),
        )

    def restore(self, path):
        """Take all from a checkpoint; ValueError, and no change, when it is damaged or another run's."""
        arrays, saved = io.read(path)
        if not isinstance(saved, dict) or saved.get("fastconv_checkpoint") != 1:
            raise ValueError(f"{path}: not a training checkpoint (need one that fit wrote)")
        generators = self._generators()
        before = (
            self.model.state_dict(),
            self.optimizer.state_dict(),
            {n: _rng_state(g) for n, g in generators.items()},
        )
        groups = {"model": {}, "best": {}, "optimizer": {}}
        try:
            changed = [
                f"{name} was {saved['settings'].get(name)}, is {value}"
                for name, value in self.settings.items()
                if saved["settings"].get(name) != value
            ]
            if changed:
                raise ValueError(f"it belongs to another run: {'; '.join(changed)}")
            if set(saved["generators"]) != set(generators):
                raise ValueError(
                    f"it has generators {sorted(saved['generators'])}, this run {sorted(generators)}"
                )
            for name, array in arrays.items():
                group, _, rest = name.partition(".")
                groups[group][rest] = array
            self.model.load_state_dict(groups["model"])
            self.optimizer.load_state_dict({**saved["optimizer"], "state": groups["optimizer"]})
            for name, rng in generators.items():
                _set_rng_state(rng, saved["generators"][name])
            self.lr, self.history, self.best = saved["lr"], saved["history"], groups["best"]
            self.best_loss, self.stopped = saved["best_loss"], saved["stopped"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.model.load_state_dict(before[0])
            self.optimizer.load_state_dict(before[1])
            for name, rng in generators.items():
                _set_rng_state(rng, before[2][name])
            fault = (
                error
                if isinstance(error, ValueError)
                else f"damaged metadata ({type(error).__name__}: {error})"
            )
            raise ValueError(f"{path}: {fault}") from error


def _rng_state(rng):
    """State of a generator as JSON takes it: arrays (Philox, MT19937) as lists."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value

    return plain(rng.bit_generator.state)


def _set_rng_state(rng, state):
    def arrays(value):
        if isinstance(value, dict):
            return {name: arrays(item) for name, item in value.items()}
        return np.array(value, np.uint64) if isinstance(value, list) else value

    rng.bit_generator.state = arrays(state)


# ---- progress and interruption -----------------------------------------------------------------------------


class _Progress:
    """tqdm's bar over all steps, or a line an epoch without tqdm, or nothing; on standard error."""

    def __init__(self, total, done, wanted):
        self.wanted, self.bar, self.last = wanted, None, ""
        if wanted:
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self.bar = tqdm(total=total, initial=done, unit="step", file=sys.stderr, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def advance(self):
        if self.bar is not None:
            self.bar.update()

    def epoch(self, entry, epochs):
        names = dict(
            loss="loss", accuracy="accuracy", val_loss="validation loss", val_accuracy="validation accuracy"
        )
        text = ", ".join(
            f"{label} {100 * entry[name]:.2f} %" if "accuracy" in name else f"{label} {entry[name]:.4f}"
            for name, label in names.items()
            if entry[name] is not None
        )
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif self.wanted:
            print(
                f"epoch {entry['epoch']}/{epochs}: {text} ({entry['seconds']:.1f} s)",
                file=sys.stderr,
                flush=True,
            )


@contextlib.contextmanager
def _interrupt_between_steps():
    """Hold a Ctrl-C back until the function that is yielded gets called; a second one acts at once.

    An optimiser that is interrupted halfway would leave some parameters a step ahead of others. Outside the
    main thread, or where the program has a handler of its own, nothing is changed.
    """
    pressed = []

    def handler(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    def check():
        if pressed:
            raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield check
        check()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
