"""Random problems and random nonsense, for as long as one likes:  python tests/fuzz.py --seconds 60

Three kinds of turns. A problem: an operation with random shapes, options, layout, algorithm, ISA level and threads,
compared with the reference, its inputs next to forbidden pages, its scratch poisoned. A promise: a convolution by a
random algorithm, whose bits may depend on nothing but its values, and in which non-finite values stay where they
belong. Nonsense: a right call with some arguments replaced by what nobody should pass; only the errors of the
contract may leave.

Turns run in child processes, so that a crash or a hang is a finding and not the end. Every finding is printed with
the turn's number; --turn repeats that one in this process. Not collected by pytest.
"""

import argparse
import faulthandler
import math
import mmap
import os
import signal
import struct
import sys
import time
import traceback
import warnings

import numpy as np
from containment import Clean, Spoilt, bad_values

import fastconv as fc
from fastconv import testing
from fastconv._cpu import isa
from fastconv.testing import operations as ops

ALLOWED = (ValueError, TypeError, fc.UnsupportedError, fc.DeviceError, MemoryError)
TURN_SECONDS = 60  # a turn takes milliseconds; nonsense that asks for much work is not a finding below this
MOST_FLOPS = 3e6, 3e7, 2e8  # of a convolution: the last takes the reference a second
MEMORY = 6 << 30  # bytes of address space a child may use: more is refused, as the system would


# -- problems -------------------------------------------------------------------------------------------------


def pick(rng, *values):
    return values[rng.integers(len(values))]


def sizes(rng, ndim, low, high):
    return tuple(int(n) for n in rng.integers(low, high, ndim))


def option(rng, ndim, low, high):
    """One int or one per axis."""
    return int(rng.integers(low, high)) if rng.random() < 0.6 else sizes(rng, ndim, low, high)


def padding(rng, ndim, limit):
    if rng.random() < 0.5:
        return option(rng, ndim, 0, limit)
    return tuple(sizes(rng, 2, 0, limit) for _ in range(ndim))


def per_axis(value, ndim):
    return value if isinstance(value, tuple) else (value,) * ndim


def room(rng, kernel, dilation, extra):
    """Spatial sizes that hold the kernel, and up to `extra` more."""
    dilation = per_axis(dilation, len(kernel))
    return tuple(int(d * (k - 1) + 1 + rng.integers(0, extra)) for k, d in zip(kernel, dilation))


def convolution(rng):
    ndim = pick(rng, 1, 2, 2, 2, 3)
    groups = pick(rng, 1, 1, 1, 2, 3, 8)
    C, K = groups * int(rng.integers(1, pick(rng, 4, 20, 70))), groups * int(rng.integers(1, pick(rng, 4, 20, 70)))
    kernel = (pick(rng, 1, 2, 3, 4, 5, 7),) * ndim if rng.random() < 0.6 else sizes(rng, ndim, 1, 6)
    options = {}
    if rng.random() < 0.5:
        options["stride"] = option(rng, ndim, 1, 5)
    if rng.random() < 0.25:
        options["dilation"] = option(rng, ndim, 1, 4)
    size = room(rng, kernel, options.get("dilation", 1), pick(rng, 3, 12, 40 // ndim, (300, 40, 12)[ndim - 1]))
    if rng.random() < 0.25:
        options["padding_mode"] = pick(rng, "reflect", "replicate", "circular")
        low = min(size) - 1 if options["padding_mode"] == "reflect" else min(size)
        options["padding"] = padding(rng, ndim, max(min(low, 4), 1))
    elif rng.random() < 0.7:
        words = ("same", "same_lower", "full", "valid")
        options["padding"] = pick(rng, *words) if rng.random() < 0.2 else padding(rng, ndim, pick(rng, 2, 4, 9))
    if rng.random() < 0.3:
        options["activation"] = pick(rng, "relu", "leaky_relu", "sigmoid", "tanh")
    if groups > 1:
        options["groups"] = groups
    lead = (C,) if rng.random() < 0.1 else (pick(rng, 0, 1, 1, 2, 3, 5, 9), C)
    case = ops.Convolution(ndim, (*lead, *size), (K, C // groups, *kernel), bias=rng.random() < 0.5, **options)
    if case.problem(np.float32).flops > pick(rng, *MOST_FLOPS):
        raise ValueError("too much for the reference")
    return case


def transposed(rng):
    ndim, groups = pick(rng, 1, 2, 2, 3), pick(rng, 1, 1, 2, 3)
    C, K = groups * int(rng.integers(1, 9)), groups * int(rng.integers(1, 9))
    kernel = sizes(rng, ndim, 1, 6)
    options = {"stride": option(rng, ndim, 1, 5), "dilation": option(rng, ndim, 1, 3), "groups": groups}
    if rng.random() < 0.5:
        options["padding"] = padding(rng, ndim, 3)
    if rng.random() < 0.5:
        spare = zip(per_axis(options["stride"], ndim), per_axis(options["dilation"], ndim))
        options["output_padding"] = tuple(int(rng.integers(0, max(pair))) for pair in spare)
    lead = (C,) if rng.random() < 0.1 else (pick(rng, 0, 1, 2, 3), C)
    return ops.Transposed(ndim, (*lead, *sizes(rng, ndim, 1, 9)), (C, K // groups, *kernel), bias=rng.random() < 0.5,
                          **options)  # fmt: skip


def columns(rng):
    ndim = pick(rng, 1, 2, 2, 3)
    kernel, dilation = sizes(rng, ndim, 1, 5), option(rng, ndim, 1, 4)
    size = room(rng, kernel, dilation, 14 // ndim)
    return ops.Columns((pick(rng, 0, 1, 2), int(rng.integers(1, 6)), *size), kernel, dilation=dilation,
                       padding=padding(rng, ndim, 4), stride=option(rng, ndim, 1, 5))  # fmt: skip


def pool(rng):
    ndim = pick(rng, 1, 2, 2, 3)
    lead = (int(rng.integers(1, 9)),) if rng.random() < 0.1 else (pick(rng, 0, 1, 2, 3), int(rng.integers(1, 9)))
    if rng.random() < 0.3:
        kind = pick(rng, ops.AdaptiveMaxPool, ops.AdaptiveAvgPool)
        size = sizes(rng, ndim, 1, pick(rng, 5, 40, 140 // ndim))
        out = tuple(pick(rng, None, int(rng.integers(1, 2 * n + 2))) for n in size)
        return kind(ndim, (*lead, *size), out)
    kernel, dilation = sizes(rng, ndim, 1, pick(rng, 4, 9)), option(rng, ndim, 1, pick(rng, 2, 4))
    options = {"padding": padding(rng, ndim, pick(rng, 1, 3, 9)), "dilation": dilation}
    options["stride"] = pick(rng, None, option(rng, ndim, 1, 6))
    options["ceil_mode"] = bool(rng.random() < 0.4)
    size = room(rng, kernel, dilation, pick(rng, 4, 20, 150 // ndim))
    if rng.random() < 0.5:
        return ops.MaxPool(ndim, (*lead, *size), kernel, **options)
    options["count_include_pad"] = bool(rng.random() < 0.5)
    options["divisor_override"] = pick(rng, None, None, 1, 3, 8)
    return ops.AvgPool(ndim, (*lead, *size), kernel, **options)


def elementwise(rng):
    shape = sizes(rng, rng.integers(0, 5), pick(rng, 0, 1), pick(rng, 4, 9, 40))
    kind = rng.integers(4)
    if kind == 0:
        op = pick(rng, "relu", "leaky_relu", "elu", "sigmoid", "tanh")
        name = {"leaky_relu": "negative_slope", "elu": "alpha"}.get(op)
        return ops.Activation(op, shape, **({name: float(rng.random() * 3)} if name and rng.random() < 0.5 else {}))
    if kind == 1:
        axis = int(rng.integers(-max(len(shape), 1), max(len(shape), 1)))
        return ops.Softmax(pick(rng, "softmax", "log_softmax"), shape, axis)
    if kind == 2:
        return ops.Dropout(shape, pick(rng, 0.0, 0.25, 0.5, 0.75, 1.0))
    shape, pieces = shape or (1,), int(rng.integers(1, 5))
    axis = int(rng.integers(len(shape)))
    shape = tuple(n * pieces if i == axis else n for i, n in enumerate(shape))
    return ops.Maxout(shape, pieces, axis)


def loss(rng):
    reduction = pick(rng, "mean", "sum", "none")
    shape = (pick(rng, 0, 1, 2, 7), int(rng.integers(1, pick(rng, 4, 40, 1100))), *sizes(rng, rng.integers(3), 1, 6))
    op = pick(rng, "softmax_cross_entropy", "nll", "hinge", "sigmoid_cross_entropy", "squared_error")
    if op in ("sigmoid_cross_entropy", "squared_error"):
        weighted = op == "sigmoid_cross_entropy" and rng.random() < 0.5
        return ops.Loss(op, shape, target="reals", weighted=weighted, reduction=reduction)
    if op == "hinge":
        return ops.Loss(op, shape[:2], reduction=reduction, margin=float(rng.random() * 2))
    options = {"weighted": bool(rng.random() < 0.5), "reduction": reduction}
    if op == "softmax_cross_entropy":
        options["label_smoothing"] = pick(rng, 0.0, 0.0, 0.1, 1.0)
        if rng.random() < 0.3:
            return ops.Loss(op, shape, target="probabilities", **options)
    options["target_dtype"] = pick(rng, np.int64, np.int32, np.int16) if shape[1] > 120 else np.int8
    return ops.Loss(op, shape, ignore_index=pick(rng, -100, 0), **options)


def dense(rng):
    kind = rng.integers(3)
    if kind == 0:
        lead = sizes(rng, rng.integers(0, 3), 0, pick(rng, 4, 70))
        return ops.Linear((*lead, int(rng.integers(1, pick(rng, 9, 70, 1500)))), int(rng.integers(1, pick(rng, 9, 70))),
                          bias=rng.random() < 0.5)  # fmt: skip
    shape = (int(rng.integers(2, 6)), int(rng.integers(1, pick(rng, 4, 40))), *sizes(rng, rng.integers(4), 1, 8))
    if kind == 1:
        return ops.BatchNorm(shape, bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    return ops.LocalResponseNorm(shape, int(rng.integers(1, 8)), alpha=float(rng.random()), beta=pick(rng, 0.5, 0.75, 1.0),
                                 k=float(rng.random() + 1))  # fmt: skip


FAMILIES = (convolution, convolution, convolution, transposed, columns, pool, pool, elementwise, loss, dense)


def draw_case(rng, *families):
    """A random case that the reference accepts."""
    while True:
        make = pick(rng, *(families or FAMILIES))
        try:
            case = make(rng)
            case.layout = pick(rng, "contiguous", *testing.LAYOUTS)
            case.name()
            return case
        except ValueError:  # padding swallows the kernel, say: another one
            continue


def problem_turn(rng):
    case, dtype = draw_case(rng), pick(rng, *testing.DTYPES)
    kind, level = pick(rng, *case.kinds), pick(rng, *isa.levels())
    algorithm = pick(rng, "auto", *algorithms(case))
    threads, side = int(rng.integers(1, 5)), pick(rng, "start", "end")
    note(f"{case.name(dtype)} {case.options} {kind} {level} {algorithm} {threads} threads, guarded at its {side}")
    with isa.use(level) as kernels, fc.num_threads(threads), np.errstate(all="raise"):
        kernels.poison_memory(True)
        testing.check(fc, case, dtype, kind, algorithm, place=lambda a: testing.guarded(a, side))
        assert kernels.poison_memory(True) == 0, "something was written behind the end of scratch or of a result"


def algorithms(case):
    """The names that can be asked for in a case's calls."""
    directions = case.directions.values() if isinstance(case, ops.Convolution) else ()
    return tuple(dict.fromkeys(name for way in directions for name in fc.algorithms(way.format(case.op))))


# -- promises -------------------------------------------------------------------------------------------------


def promise_turn(rng):
    case = draw_case(rng, convolution)
    while len(case.x) < case.ndim + 2 or not case.x[0]:
        case = draw_case(rng, convolution)
    case.layout = "contiguous"
    dtype, level, algorithm = pick(rng, *testing.DTYPES), pick(rng, *isa.levels()), pick(rng, "auto", *algorithms(case))
    threads, kept = int(rng.integers(2, 5)), int(rng.integers(case.x[0]))
    layouts = {name: pick(rng, *testing.LAYOUTS) for name in ("x", "weight", "bias", "dy")}
    note(f"{case.name(dtype)} {case.options} {level} {algorithm} {threads} threads, sample {kept}, {layouts}")
    inputs = case.inputs(dtype)
    laid = {name: a if a is None else testing.lay_out(a, layouts[name]) for name, a in inputs.items()}
    alone = {name: a[kept : kept + 1] if name in ("x", "dy") else a for name, a in inputs.items()}
    with isa.use(level) as kernels, np.errstate(all="raise"):
        kernels.poison_memory(True)
        with fc.num_threads(1):
            expected = case.run(fc, inputs, algorithm)
        with fc.num_threads(threads):
            for name, result in case.run(fc, laid, algorithm).items():
                testing.same_bits(result, expected[name], name)
            for name, result in case.run(fc, alone, algorithm).items():
                if name.endswith(("y", "dx")):
                    testing.same_bits(result, expected[name][kept : kept + 1], f"{name} of one sample")
            if case.options.get("activation") is None:
                bad = pick(rng, *bad_values(dtype))
                note(f"{case.name(dtype)} {case.options} {level} {algorithm} {threads} threads, {bad} in its inputs")
                Spoilt(Clean(case, dtype, rng), rng, bad, pick(rng, 0.0, 0.0, 0.01)).check(algorithm, f"{bad}")
        assert kernels.poison_memory(True) == 0, "something was written behind the end of scratch or of a result"


# -- nonsense -------------------------------------------------------------------------------------------------


class Odd:
    """Things that look like something they are not."""

    def __init__(self, **what):
        self.__dict__.update(what)


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __repr__(self):
        return f"Index({self.value!r})"


class Subclass(np.ndarray):
    pass


INTS = (0, 1, 2, 3, 7, -1, -2, 100, 10**6, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30)
OTHERS = (
    None, True, False, 0.0, 1.0, 0.5, -0.5, float("nan"), float("inf"), -float("inf"), 1e308, 1j, "", "same", "auto",
    "im2col", "relu", "x" * 100, b"1", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((1, 2), (0, 1)), ((1, 2),), (0,), (-1, 1),
    ((1, 2, 3),), (1, (2, 3)), [1, 2], [[1, 2], [3, 4]], {}, {1: 2}, {3}, object(), Odd(shape=(2, 2), dtype="f4"),
    Odd(__cuda_array_interface__=None), Odd(__cuda_array_interface__={"typestr": "<f4"}), Index(2), Index(10**30),
    Index(RuntimeError("no")), range(3), slice(None), Ellipsis, np.float32(2), np.int8(3), np.uint64(2**63), np.bool_(True),
    np.str_("same"), np.datetime64("2020"), np.random.default_rng(0), np.random.RandomState(0), len, int,
)  # fmt: skip
SHAPES = ((), (0,), (1,), (3,), (2, 3), (3, 3), (1, 1, 1), (2, 3, 4), (2, 0, 4, 4), (0, 3, 5, 5), (2, 3, 5, 5),
          (4, 3, 3, 3), (2, 3, 5, 5, 5), (1,) * 6, (1,) * 30)  # fmt: skip
HUGE = ((2**31, 3), (1, 1, 2**31, 2**31), (2**40,), (1, 2**20, 2**20), (2**62,), (1, 1, 2**31 - 1, 2**31 - 1), (3, 2**33, 1, 1))
KINDS = ("f4", "f8", ">f4", ">f8", "f2", "g", "F", "D", "i1", "u1", "i4", "i8", "u8", "?", "S3", "U2", "O", "M8[s]", "V4",
         [("a", "f4")])  # fmt: skip


def odd_array(rng):
    dtype = np.dtype(KINDS[rng.integers(len(KINDS))])
    if rng.random() < 0.2:
        shape = pick(rng, *HUGE)
        return np.broadcast_to(np.zeros((), dtype if math.prod(shape) < 2**58 else np.int8), shape)
    array = np.zeros(pick(rng, *SHAPES), dtype)
    if dtype.kind in "fiu":
        array[...] = rng.integers(0, 3, array.shape)
    how = rng.integers(8)
    if how == 0:
        return np.ma.masked_array(array)
    if how == 1:
        return array.view(Subclass)
    if how == 2 and array.ndim:
        return array[::-1].T
    if how == 3 and array.ndim:
        return array[:0]
    if how == 4:
        return array.tolist()
    if how == 5 and dtype.kind == "f" and array.ndim < 6:
        return testing.lay_out(array, pick(rng, *testing.LAYOUTS))
    return array


def odd_value(rng):
    kind = rng.random()
    if kind < 0.3:
        return pick(rng, *INTS)
    if kind < 0.45:
        return tuple(pick(rng, *INTS) for _ in range(rng.integers(0, 5)))
    if kind < 0.75:
        return OTHERS[rng.integers(len(OTHERS))]
    return odd_array(rng)


class Recorded:
    """Stands for the public functions and notes the calls that a case makes."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name == "plan":
            raise AttributeError(name)
        function = getattr(fc, name)

        def called(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return function(*args, **kwargs)

        return called


CONTROL = (
    ("set_num_threads", (1,), {}), ("num_threads", (1,), {}), ("precision", ("fast",), {}),
    ("algorithms", ("conv2d",), {}), ("plan", ("conv2d", np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))), {}),
    ("plan", ("conv_transpose2d_backward_weight", np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))), {"stride": 2}),
    ("check_gradient", (lambda x: (x, lambda dy: dy), np.ones(2)), {}), ("show_config", ("dicts",), {}),
)  # fmt: skip
RANDOM_NAMES = ("bias", "out", "stride", "padding", "groups", "dilation", "activation", "algorithm", "padding_mode",
                "output_mask", "weight", "reduction", "axis", "rng", "ceil_mode", "return_indices", "nonsense")  # fmt: skip


def nonsense_turn(rng):
    if rng.random() < 0.05:
        name, args, kwargs = CONTROL[rng.integers(len(CONTROL))]
    else:
        recorded = Recorded()
        case = draw_case(rng)
        with np.errstate(all="ignore"):
            case.run(recorded, case.inputs(pick(rng, *testing.DTYPES), "real"))
        name, args, kwargs = pick(rng, *recorded.calls)
    args, kwargs = list(args), dict(kwargs)
    for _ in range(pick(rng, 1, 1, 2, 3)):
        where = int(rng.integers(len(args) + len(kwargs) + 1))
        if where < len(args):
            args[where] = odd_value(rng)
        elif where < len(args) + len(kwargs):
            kwargs[list(kwargs)[where - len(args)]] = odd_value(rng)
        elif rng.random() < 0.5:
            kwargs[pick(rng, *RANDOM_NAMES)] = odd_value(rng)
        elif args:
            args.pop()
    with np.printoptions(threshold=3):
        note(f"{name}{shown(args)} {shown(kwargs)}")
    inputs = [a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray) and a.size < 10**6 and a.dtype.kind in "fiu"]
    before = [a.tobytes() for a in inputs]
    try:
        with np.errstate(all="raise"):
            result = getattr(fc, name)(*args, **kwargs)
    except ALLOWED as error:
        if type(error) is TypeError and "argument" in str(error) and f"{name}()" in str(error):
            return  # Python's own: too many arguments, an unknown keyword
        names = {name, *(a for a in args if isinstance(a, str) and a)}  # plan names the operation it is asked for
        names = tuple(names | {a.split("_backward")[0] for a in names})
        if isinstance(error, (ValueError, TypeError)) and not str(error).startswith(names):
            raise AssertionError(f"the message does not name the operation: {error}") from error
    except RuntimeError as error:
        if str(error) != "no":  # raised by our own __index__
            raise
    else:
        fresh = result if isinstance(result, tuple) else (result,)
        if name == "set_num_threads":
            fc.set_num_threads(1)
        assert all(a.flags.c_contiguous for a in fresh if isinstance(a, np.ndarray))
    writes = {"batch_norm"} if name == "batch_norm" else set()
    if not writes and "out" not in kwargs:
        assert before == [a.tobytes() for a in inputs], "an input was written to"


def shown(value):
    """A short text for the note: arrays by shape and dtype."""
    if isinstance(value, np.ndarray):
        return f"<{type(value).__name__} {value.shape} {value.dtype} {value.strides}>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(v)}" for key, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(shown, value)) + ")"
    return repr(value)


# -- turns in children ----------------------------------------------------------------------------------------

TURNS = {"problem": problem_turn, "promise": promise_turn, "nonsense": nonsense_turn}
_notes = mmap.mmap(-1, 1 << 14)  # shared: turn, when it began, what it does


def note(text):
    data = text.encode(errors="replace")[: (1 << 14) - 24]
    _notes[16:] = struct.pack("q", len(data)) + data + bytes((1 << 14) - 24 - len(data))


def noted():
    turn, began, length = struct.unpack("qdq", _notes[:24])
    return turn, began, _notes[24 : 24 + length].decode(errors="replace")


def take_turn(seed, turn, kinds):
    _notes[:16] = struct.pack("qd", turn, time.monotonic())
    rng = np.random.default_rng([seed, turn])
    TURNS[kinds[turn % len(kinds)]](rng)


def child(seed, first, kinds, stop):
    """Takes turns until one fails or time is up; the exit status says which."""
    if hasattr(signal, "SIGALRM") and MEMORY:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    turn = first
    while time.monotonic() < stop:
        try:
            take_turn(seed, turn, kinds)
        except BaseException:
            print(f"\nturn {turn}: {noted()[2]}", flush=True)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        turn += 1
    _notes[:16] = struct.pack("qd", turn, time.monotonic())
    os._exit(0)


def watch(seed, first, kinds, stop):
    """Forks a child and waits; returns (how it ended, the turn after its last)."""
    _notes[:16] = struct.pack("qd", first, time.monotonic())
    pid = os.fork()
    if pid == 0:
        child(seed, first, kinds, stop)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        turn, began, what = noted()
        if done:
            ended = None if status == 0 else "failed" if status == 256 else f"crashed, status {status}"
            return ended, turn + (status != 0), what
        if time.monotonic() - began > TURN_SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"takes more than {TURN_SECONDS} s", turn + 1, what
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turn", type=int, help="repeat one turn in this process")
    parser.add_argument("--first", type=int, default=0, help="the turn to begin with")
    parser.add_argument("--kinds", nargs="+", choices=list(TURNS), default=list(TURNS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # where is it? (kill -USR1)
    if options.turn is not None:
        try:
            take_turn(options.seed, options.turn, options.kinds)
        finally:
            print(noted()[2])
        return 0
    stop, turn, findings = time.monotonic() + options.seconds, options.first, 0
    while time.monotonic() < stop:
        ended, turn, what = watch(options.seed, turn, options.kinds, stop)
        if ended:
            findings += 1
            print(f"turn {turn - 1} {ended}: {what}", flush=True)
    print(f"{turn - options.first} turns, {findings} findings")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
