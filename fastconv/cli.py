"""The command ``fastconv``: info, check, train, bench. Parses arguments, calls the room that works, prints.

Results go to standard output, progress and complaints to standard error. Exit status: 0 done; 1 a check
failed or a benchmark got slower; 2 an argument is wrong or unknown; 130 interrupted by Ctrl-C.
"""

import argparse
import os
import sys

from ._version import __version__

OK, FAILED, WRONG_ARGUMENT, INTERRUPTED = 0, 1, 2, 130


def main(argv=None):
    """Run one command; `argv` defaults to the process's arguments. Returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has seen enough: let the flush at exit go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, OSError) as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return WRONG_ARGUMENT


def _parser():
    parser = argparse.ArgumentParser(
        prog="fastconv", description="Compiled kernels for convolutional networks on NumPy arrays."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("info", help="what this installation is, and what it found on this machine")
    command.set_defaults(run=_info)

    command = commands.add_parser(
        "check",
        help="every kernel against the reference on this machine: a table",
        description="Run every operation on its list of cases, at every instruction-set level that this"
        " processor has and in both dtypes, and compare with the naive reference; then compare gradients with"
        " central differences.",
    )
    command.add_argument(
        "ops",
        nargs="*",
        metavar="OP",
        help="only cases that call this function, such as conv2d (default: all)",
    )
    command.add_argument("--quick", action="store_true", help="one case in eight")
    command.set_defaults(run=_check)

    command = commands.add_parser(
        "train",
        help="train a network on real data",
        description="Train a network and measure it on held-out data.",
    )
    command.add_argument("recipe", choices=["lenet5"], help="what to train")
    command.add_argument(
        "--data",
        metavar="DIR",
        help="folder with the four MNIST files, .gz or not (default: the bundled digits)",
    )
    command.add_argument(
        "--seed", type=_count("seed", 0), default=0, help="the same seed gives the same bits (default: 0)"
    )
    command.add_argument(
        "--epochs", type=_count("epochs", 1), help="default: what the recipe says, 75 for the digits"
    )
    command.add_argument(
        "--out",
        metavar="DIR",
        default="runs/lenet5",
        help="where pictures, model and checkpoint go (default: %(default)s)",
    )
    command.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    command.add_argument("--quiet", action="store_true", help="no progress on standard error")
    command.set_defaults(run=_train)

    from .bench import command as bench

    command = commands.add_parser(
        "bench",
        help="fastconv and other libraries side by side",
        description="Measure layers by fastconv and by other libraries that are installed; each is checked"
        " against float64 before it is timed. Ratios are a peer's time over fastconv's.",
        epilog="everything, for a document: fastconv bench --layers all --implementations torch"
        " torch_channels_last onnxruntime --allocator both --seconds 0.1 --json whole.json --html whole.html"
        " --markdown whole.md (may be cut by --layers, --directions, --threads, --allocator into parts, which"
        " --report joins)",
    )
    bench.add_options(command)
    command.set_defaults(run=_bench)
    return parser


def _count(name, least):
    """An argparse type: an integer of at least `least`."""

    def parse(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{name} must be an integer of at least {least}, got {text!r}")
        return int(text)

    return parse


# -- info ----------------------------------------------------------------------------------------------------

COMPANIONS = ("scipy", "torch", "numba", "onnxruntime", "jax", "tqdm", "matplotlib", "safetensors")


def _info(arguments):
    from importlib import metadata

    from . import show_config
    from .bench.report import processor

    facts = show_config("dicts")
    facts["processor"] = processor()
    try:
        from ._cpu import isa
    except ImportError as error:
        facts["kernels"] = f"none ({error})"
    else:
        facts["compiler"] = isa.active().build_info()["compiler"]
    for key, value in facts.items():
        print(f"{key:<14}{_shown(value)}")
    print()
    for (
        package
    ) in COMPANIONS:  # from the installer's records: importing torch to learn its version takes seconds
        try:
            print(f"{package:<14}{metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package:<14}not installed")
    return OK


def _shown(value):
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


# -- check ---------------------------------------------------------------------------------------------------


def _check(arguments):
    from . import precision, testing
    from ._cpu import isa

    for op in arguments.ops:
        if not testing.cases(op):
            known = sorted({function for case in testing.cases() for function in case.functions})
            raise ValueError(f"check: no case calls {op!r}, need one of {', '.join(known)}")

    table, columns = {}, [(level, dtype) for level in isa.levels() for dtype in testing.DTYPES]
    # In strict precision "auto" is a direct sum, which gives integers exactly; the rest is checked by name.
    with precision("strict"):
        for level, dtype in columns:
            _progress(f"checking {level} {dtype} ...")
            with isa.use(level):
                for name, row in _checked(arguments.ops, dtype, every=8 if arguments.quick else 1):
                    table.setdefault(name, {})[level, dtype] = row
        _progress("")

    print("Compiled kernels against the naive reference: the worst error as a share of the admissible one.")
    print("Integers must give the very same numbers, by direct sums; all other bounds are derived, see")
    print("fastconv.testing.\n")
    print(f"{'':<44}{'checks':>8}  " + "".join(f"{level:>10}" for level, _ in columns))
    print(f"{'':<44}{'':>8}  " + "".join(f"{dtype.name:>10}" for _, dtype in columns))
    for name, rows in table.items():
        shares = (f"{rows[column].worst:10.2f}" if column in rows else f"{'-':>10}" for column in columns)
        verdict = "ok" if all(row.ok for row in rows.values()) else "WRONG"
        print(f"{name:<44}{sum(row.cases for row in rows.values()):>8,}  {''.join(shares)}  {verdict}")

    checks, wrong = sum(row.cases for rows in table.values() for row in rows.values()), 0
    print()
    for name, rows in table.items():
        notes = [row.note or "nothing was checked" for row in rows.values() if not row.ok]
        wrong += bool(notes)
        if notes:
            print(f"{name}: {notes[0]}")
    print(f"{checks:,} checks, {f'{wrong} of {len(table)} rows are wrong' if wrong else 'all right'}")
    return FAILED if wrong else OK


def _checked(ops, dtype, every):
    """(name of the row, row) of one column: every function, every named algorithm, gradients in float64."""
    import fastconv as fc

    from . import testing

    for row in testing.check_backend(fc, (dtype,), ops=ops, every=every):
        if dtype == "float64" or not row.op.startswith("gradient"):
            yield row.op, row
    directions = ("conv2d", "conv2d_backward_input", "conv2d_backward_weight")
    for algorithm in dict.fromkeys(name for direction in directions for name in fc.algorithms(direction)):
        for row in testing.check_backend(fc, (dtype,), ops=ops, every=every, algorithm=algorithm):
            yield f"{row.op}, {algorithm}", row


def _progress(text):
    """What is being done, on one line of standard error; only where somebody may be watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# -- train ---------------------------------------------------------------------------------------------------


def _train(arguments):
    from . import recipes

    result = recipes.train_lenet5(
        data_dir=arguments.data,
        seed=arguments.seed,
        epochs=arguments.epochs,
        out_dir=arguments.out,
        resume=arguments.resume,
        progress=not arguments.quiet,
    )
    print(f"{len(result.held_out[1])} held-out images, {result.seconds:.1f} s")
    for path in result.files:
        print(f"wrote {path}")
    print(f"held-out accuracy: {100 * result.accuracy:.2f} %")
    return OK


# -- bench ---------------------------------------------------------------------------------------------------


def _bench(arguments):
    from . import DeviceError
    from .bench import command

    try:
        return OK if command.run(arguments) else FAILED
    except DeviceError as error:  # a GPU was asked for, and there is none: an argument that does not fit here
        print(f"fastconv: {error}", file=sys.stderr)
        return WRONG_ARGUMENT
