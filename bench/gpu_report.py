"""Everything that only hardware can tell, in one run of under ten minutes: `python bench/gpu_report.py`.

Builds every kernel, checks each against float64 from the smallest case up, checks the public operations,
then times all of it: convolutions against cuDNN through torch in both layouts, memory-bound operations
against the copy bandwidth, the launch path. Each stage is a process of its own with a time guard, so that a
kernel that hangs or faults costs its stage and no more. Ends with one table and status 0 if every check
passed, 1 if one failed or there is no GPU. Needs fastconv built, numba-cuda, pytest (its cases are the
tests'); torch for the peers. Ratio = cuDNN's time / ours.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOTAL = 590  # seconds of the whole run
MARK = "@row "  # begins a line that a stage hands to the report

# N, C, size, K, kernel, stride, padding
SHAPES = {
    "resnet conv1": (32, 3, 224, 64, 7, 2, 3), "resnet 56 1x1 64": (32, 64, 56, 64, 1, 1, 0),
    "resnet 56 3x3 64": (32, 64, 56, 64, 3, 1, 1), "resnet 56 1x1 256": (32, 64, 56, 256, 1, 1, 0),
    "resnet 56 s2 128": (32, 128, 56, 128, 3, 2, 1), "resnet 28 3x3 128": (32, 128, 28, 128, 3, 1, 1),
    "resnet 28 1x1 512": (32, 128, 28, 512, 1, 1, 0), "resnet 14 3x3 256": (32, 256, 14, 256, 3, 1, 1),
    "resnet 14 1x1 1024": (32, 1024, 14, 256, 1, 1, 0), "resnet 7 3x3 512": (32, 512, 7, 512, 3, 1, 1),
    "resnet s2 1x1 512": (32, 256, 56, 512, 1, 2, 0), "vgg 224 3x3 64": (8, 64, 224, 64, 3, 1, 1),
    "vgg 112 3x3 128": (16, 128, 112, 128, 3, 1, 1), "vgg 56 3x3 256": (32, 256, 56, 256, 3, 1, 1),
    "vgg 28 3x3 512": (32, 512, 28, 512, 3, 1, 1), "alexnet conv2": (64, 64, 27, 192, 5, 1, 2),
    "alexnet conv3": (64, 192, 13, 384, 3, 1, 1), "unet 256 3x3 64": (4, 64, 256, 64, 3, 1, 1),
    "unet 64 3x3 256": (8, 256, 64, 256, 3, 1, 1), "unet 32 3x3 1024": (4, 512, 32, 1024, 3, 1, 1),
}  # fmt: skip
DIRECTIONS = {"conv": "fprop", "conv_backward_input": "dgrad", "conv_backward_weight": "wgrad"}
KINDS = {"bf16": ("bf16", "wgmma"), "f16": ("f16", "wgmma"), "tf32": ("f32", "wgmma_tf32")}
KINDS |= {"3xtf32": ("f32", "wgmma_3xtf32"), "strict": ("f32", "ffma")}
# what a row of the table above falls back to for a direction or a device that its algorithm does not have
OLDER = {"wgmma": "mma", "wgmma_tf32": "mma_tf32", "wgmma_3xtf32": "mma_3xtf32"}
ALGORITHMS = ("ffma", "mma", "mma_tf32", "mma_3xtf32", "wgmma", "wgmma_tf32", "wgmma_3xtf32")


# -- the parent ----------------------------------------------------------------------------------------------


def stages():
    """(name, arguments, seconds) in order."""
    yield "device", [], 60
    yield "build", [], 240
    for algorithm in ALGORITHMS:
        yield "check", [algorithm], 60
    yield "memory-check", [], 60
    yield "operations", [], 120
    yield "accuracy", [], 90
    yield "halves", [], 60
    for kind in KINDS:
        yield "speed", [kind], 100
    yield "memory", [], 40
    yield "launch", [], 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--stage", nargs="+", help="run one stage in this process (used by the report itself)"
    )
    parser.add_argument("--only", nargs="+", help="names of the stages to run")
    options = parser.parse_args()
    if options.stage:
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        return STAGES[options.stage[0]](*options.stage[1:])
    reason = no_device()
    if reason is not None:
        print(f"gpu_report: nothing was measured: {reason}", file=sys.stderr)
        return 1
    begin, rows, failed = time.time(), [], False
    for name, arguments, seconds in stages():
        if options.only and name not in options.only:
            continue
        title = " ".join([name, *arguments])
        left = TOTAL - (time.time() - begin)
        if left < 5:
            rows.append((title, "not run", f"the {TOTAL} s of the report were over"))
            failed = True
            continue
        found, problem = run_stage([name, *arguments], min(seconds, left))
        rows += [(title, *row) for row in found]
        if problem:
            rows.append((title, "FAILED", problem))
        failed = failed or bool(problem) or any(row[1] == "FAILED" for row in found)
        print(
            f"gpu_report: {title}: {len(found)} rows, {time.time() - begin:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    print_table(rows)
    return 1 if failed else 0


def no_device():
    """Why nothing can be run here, or None; asked in a process of its own."""
    code = "import fastconv as fc, sys; from fastconv.cuda import _missing; print(_missing() or '')"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return "asking numba for a GPU took more than two minutes"
    if run.returncode:
        return (run.stderr.strip().splitlines() or ["fastconv cannot be imported"])[-1]
    return run.stdout.strip() or None


def run_stage(arguments, seconds):
    """(rows, what went wrong or None) of one stage."""
    command = [sys.executable, __file__, "--stage", *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        output, problem = run.stdout, None
        if run.returncode:
            problem = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        problem = f"still running after {seconds:.0f} s"
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    return [tuple(json.loads(line[len(MARK) :])) for line in lines], problem


def print_table(rows):
    widths = [max((len(str(row[i])) for row in rows if i < len(row)), default=0) for i in range(2)]
    for stage, what, *rest in rows:
        print(stage.ljust(widths[0]), str(what).ljust(widths[1]), *rest, sep="  ")


def row(what, *values):
    """Hand a row to the report at once, so that a stage that is killed later keeps it."""
    print(MARK + json.dumps([what, *map(str, values)]), flush=True)


# -- memory and programs, in a stage -------------------------------------------------------------------------


class Bench:
    """Programs on device memory that numba allocates."""

    def __init__(self):
        from numba import cuda

        from fastconv.cuda import fast, select

        self.cuda, self.runner = cuda, fast.runner(0)
        cuda.current_context()
        self.device = select.Device(
            self.runner.arch, self.runner.attributes["multiprocessors"], self.runner.attributes["shared"]
        )

    def put(self, array):
        return self.cuda.to_device(array)

    def empty(self, nbytes):
        import numpy as np

        made = self.cuda.device_array(max(nbytes, 1), np.uint8)
        self.cuda.cudadrv.driver.device_memset(made, 0xFF, made.size)  # NaN in every format
        return made

    def address(self, array):
        return array.__cuda_array_interface__["data"][0]

    def ready(self, program, **arrays):
        """A function that launches the program once on these arrays."""
        prepared, keep = self.runner.prepare(program), dict(arrays)
        keep |= {name: self.empty(nbytes) for name, nbytes in program.scratch}
        addresses = {name: self.address(a) for name, a in keep.items()}
        launch = lambda: prepared(addresses, 0)  # noqa: E731
        launch.keep = keep
        return launch

    def seconds(self, launch, budget=0.02):
        """Median time of a launch over five samples, warm."""
        cuda = self.cuda
        for _ in range(3):
            launch()
        cuda.synchronize()
        start = time.perf_counter()
        launch()
        cuda.synchronize()
        times = max(1, min(200, int(budget / 5 / max(time.perf_counter() - start, 1e-6))))
        samples = []
        for _ in range(5):
            before, after = cuda.event(), cuda.event()
            before.record()
            for _ in range(times):
                launch()
            after.record()
            after.synchronize()
            samples.append(cuda.event_elapsed_time(before, after) / 1e3 / times)
        return statistics.median(samples)


def problem_of(shape):
    from test_cuda_kernels import problem_of as make

    N, C, size, K, kernel, stride, padding = shape
    return make(N, C, K, (size, size), (kernel, kernel), stride, padding)


def strides(channels, size, last):
    d, h, w = size
    dense = channels * d * h * w
    return (dense, 1, h * w * channels, w * channels, channels) if last else (dense, d * h * w, h * w, w, 1)


def program_for(bench, kind, direction, problem, last):
    """(Program, algorithm) of a kind of arithmetic, or (None, reason)."""
    from fastconv.cuda import select

    dtype, name = KINDS[kind]
    if bench.device.arch != 90 or direction not in select.CHOICES[name].directions:
        name = OLDER.get(name, name)
    reason = select.refused(name, direction, problem, bench.device, dtype)
    if reason:
        return None, reason
    views = select.contiguous_views(direction, problem)
    moved = [v._replace(strides=strides(v.channels, v.size, last)) for v in views]
    return select.program_of(name, direction, problem, dtype, *moved), name


# -- stages --------------------------------------------------------------------------------------------------


def stage_device():
    from fastconv.cuda import _compile

    bench = Bench()
    name = bench.cuda.get_current_device().name
    row("device", name.decode() if isinstance(name, bytes) else name, bench.runner.attributes)
    row("tools", _compile.versions())
    try:
        import torch

        row("torch", torch.__version__, f"cuDNN {torch.backends.cudnn.version()}")
    except ImportError:
        row("torch", "is not installed: no peers")


def needed_kernels(arch):
    """Every kernel that the other stages launch, and the main ones of the tests."""
    import sass
    from test_cuda_kernels import BACKWARD, CASES, SMALL, WEIGHT
    from test_cuda_kernels import problem_of as make

    from fastconv.cuda import select

    kernels = {kernel for kernel, least in sass.MAIN.values() if least <= arch}
    problems = [problem_of(shape) for shape in SHAPES.values()]
    small = [make(**case) for cases in (CASES, SMALL, BACKWARD, WEIGHT) for case in cases.values()]
    device = select.Device(arch)
    for problem in problems + small:
        for direction in select.DIRECTIONS:
            for name in select.names(direction):
                for dtype in select.CHOICES[name].arrays:
                    if select.refused(name, direction, problem, device, dtype) is not None:
                        continue
                    for last in (False, True):
                        views = select.contiguous_views(direction, problem)
                        moved = [v._replace(strides=strides(v.channels, v.size, last)) for v in views]
                        program = select.program_of(name, direction, problem, dtype, *moved)
                        kernels |= {step.kernel for step in program.steps}
    return sorted(kernels)


def _build(task):
    from fastconv.cuda import _cache

    kernel, arch = task
    begin = time.time()
    try:
        code, _ = _cache.cubin(kernel, arch)
        return kernel.name, len(code), time.time() - begin, None
    except Exception as error:  # reported by name; the others go on
        return kernel.name, 0, time.time() - begin, f"{type(error).__name__}: {error}"


def stage_build():
    import multiprocessing

    arch = Bench().runner.arch
    kernels = needed_kernels(arch)
    begin = time.time()
    with multiprocessing.get_context("spawn").Pool(min(16, os.cpu_count() or 1)) as pool:
        results = pool.map(_build, [(kernel, arch) for kernel in kernels], chunksize=1)
    for name, _, _, error in results:
        if error:
            row("FAILED", name, error)
    slowest = max(results, key=lambda r: r[2])
    row(
        "kernels", len(results), f"in {time.time() - begin:.0f} s", f"slowest {slowest[0]} {slowest[2]:.1f} s"
    )


def stage_check(algorithm):
    """One algorithm on integer-valued cases, smallest first: results must be exact."""
    import numpy as np
    import test_cuda_kernels as cases

    from fastconv.cuda import select
    from fastconv.cuda.gen.kernel import BYTES

    bench = Bench()
    choice = select.CHOICES[algorithm]
    table = {
        "conv": "forward",
        "conv_backward_input": "backward_input",
        "conv_backward_weight": "backward_weight",
    }
    for direction in choice.directions:
        groups = {"conv": (cases.SMALL, cases.CASES), "conv_backward_input": (cases.BACKWARD,)}
        known = {t: c for g in groups.get(direction, (cases.WEIGHT,)) for t, c in g.items()}
        order = sorted(known.items(), key=lambda item: cases.problem_of(**item[1]).flops)
        passed = 0
        for title, case in order:
            problem = cases.problem_of(**case)
            for dtype in choice.arrays:
                if select.refused(algorithm, direction, problem, bench.device, dtype) is not None:
                    continue
                for last in (True, False):
                    rng = np.random.default_rng(0)
                    make = lambda rng, shape: cases.integers(rng, shape, -1, 2)  # noqa: E731
                    arrays = cases.arrays_of(problem, rng, make)
                    views = select.contiguous_views(direction, problem)
                    moved = [v._replace(strides=strides(v.channels, v.size, last)) for v in views]
                    program = select.program_of(algorithm, direction, problem, dtype, *moved)
                    actual = computed(bench, program, direction, problem, arrays, dtype, last, BYTES[dtype])
                    expected = cases.reference(table[direction], problem, arrays)
                    expected = cases.decode(cases.encode(expected, dtype), dtype)
                    wrong = int((~(actual == expected)).sum())
                    if wrong:
                        row(
                            "FAILED",
                            DIRECTIONS[direction],
                            title,
                            dtype,
                            f"last={last}",
                            f"{wrong} of {expected.size}",
                        )
                    passed += not wrong
        row("exact", DIRECTIONS[direction], f"{passed} cases")


def computed(bench, program, direction, problem, arrays, dtype, last, width):
    """The result of a program on the device, in the user's shape as float."""
    import numpy as np
    import test_cuda_kernels as cases

    buffers = {}
    for name in ("x", "dy"):
        values = cases.encode(arrays[name].reshape(cases.five(arrays[name].shape)), dtype)
        buffers[name] = bench.put(np.ascontiguousarray(values.transpose(0, 2, 3, 4, 1) if last else values))
    buffers["weight"] = bench.put(cases.encode(arrays["weight"], dtype))
    if problem.bias:
        buffers["bias"] = bench.put(cases.encode(arrays["bias"], dtype))
    target = {"conv": "y", "conv_backward_input": "dx", "conv_backward_weight": "dweight"}[direction]
    shape = {"y": problem.y_shape, "dx": problem.x_shape, "dweight": problem.weight_shape}[target]
    buffers[target] = bench.empty(math.prod(shape) * width)
    bench.ready(program, **buffers)()
    bench.cuda.synchronize()
    bits = buffers[target].copy_to_host().view(np.float32 if width == 4 else np.uint16)
    if last and target != "dweight":
        full = cases.five(shape)
        bits = bits.reshape(full[0], *full[2:], full[1]).transpose(0, 4, 1, 2, 3)
    return cases.decode(np.ascontiguousarray(bits), dtype).reshape(shape)


def stage_memory_check():
    """The memory-bound kernels against float64, through the public functions."""
    import numpy as np

    import fastconv as fc
    from fastconv import testing
    from fastconv.testing import bounds

    rng = np.random.default_rng(0)
    x = rng.standard_normal((37, 1000)).astype(np.float32) * 4
    wide, there = x.astype(np.float64), fc.cuda.to_device(x)
    for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh"):
        expected = getattr(fc.reference, name)(wide)
        testing.compare(
            fc.cuda.to_host(getattr(fc.cuda, name)(there)), expected, bounds.function(expected, np.float32)
        )
        row("passed", name)
    for log, name in ((False, "softmax"), (True, "log_softmax")):
        found = fc.cuda.to_host(getattr(fc.cuda, name)(there))
        testing.compare(found, getattr(fc.reference, name)(wide), bounds.softmax(wide, 1, log, np.float32))
        row("passed", name)
    target = rng.integers(0, 1000, 37)
    hot = np.eye(1000)[target]
    limits = bounds.cross_entropy(wide, hot, "mean", 37, np.float32)
    found = map(fc.cuda.to_host, fc.cuda.softmax_cross_entropy(there, fc.cuda.to_device(target)))
    for a, b, limit in zip(found, fc.reference.softmax_cross_entropy(wide, target), limits):
        testing.compare(a, b, limit)
    row("passed", "softmax_cross_entropy")
    image = rng.integers(-3, 4, (3, 8, 33, 30)).astype(np.float32)
    there = fc.cuda.to_device(image)
    for options in (dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1)):
        found = fc.cuda.max_pool2d(there, **options, return_indices=True)
        for a, b in zip(map(fc.cuda.to_host, found), fc.max_pool2d(image, **options, return_indices=True)):
            testing.same_bits(a, b)
    row("passed", "max_pool2d")
    w = rng.integers(-3, 4, (8, 1, 3, 3)).astype(np.float32)
    for stride in (1, 2):
        y = fc.cuda.to_host(fc.cuda.conv2d(there, fc.cuda.to_device(w), groups=8, padding=1, stride=stride))
        assert (y == fc.conv2d(image, w, groups=8, padding=1, stride=stride)).all()
    row("passed", "depthwise")


def stage_operations():
    """Every public operation against the float64 reference, a sample of the conformance cases."""
    import numpy as np
    from cuda_device import Device

    from fastconv import testing

    for mode in ("strict", "fast"):
        import fastconv as fc

        with fc.precision(mode):
            results = testing.check_backend(Device(), dtypes=(np.float32,), every=5)
        results = list(results)
        for result in results:
            if not result.ok:
                row("FAILED", mode, result.op, f"error/bound {result.worst:.3g}", result.note)
        row(
            "passed",
            mode,
            f"{sum(r.ok for r in results)} of {len(results)} operations",
            f"{sum(r.cases for r in results)} checks",
        )


def peer_sum(torch, direction, stride, padding, x, w, dy):
    """y or dweight by torch, in the arrays' dtype."""
    if direction == "conv":
        return torch.nn.functional.conv2d(x, w, None, stride, padding)
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, mask
    )[1]  # fmt: skip


def stage_accuracy():
    """Errors on real-valued inputs at real sizes against float64, in units of eps * (2 + sqrt(L)) * the same
    sum of magnitudes.
    """
    import numpy as np

    torch = peer()
    if torch is None:
        return row("not run", "torch is not installed")
    bench = Bench()
    titles = ("resnet conv1", "resnet 56 3x3 64", "resnet 14 1x1 1024", "vgg 28 3x3 512")
    for title, sign, direction in itertools.product(
        titles, ("mixed", "positive"), ("conv", "conv_backward_weight")
    ):
        N, C, size, K, kernel, stride, padding = SHAPES[title]
        problem = problem_of((2, C, size, K, kernel, stride, padding))
        torch.manual_seed(0)
        shapes = problem.x_shape, problem.weight_shape, problem.y_shape
        arrays = [torch.randn(*shape, device="cuda") for shape in shapes]
        x, w, dy = (a.abs() for a in arrays) if sign == "positive" else arrays
        if direction == "conv":
            length, buffers, target = C * kernel * kernel, dict(x=x, weight=w), "y"
        else:
            length, buffers, target = dy[:, 0].numel(), dict(x=x, dy=dy), "dweight"
        theirs = partial(peer_sum, torch, direction, [stride] * 2, [padding] * 2)
        wide = [a.double() for a in (x, w, dy)]
        exact = theirs(*wide)
        unit = np.finfo(np.float32).eps * (2 + math.sqrt(length)) * theirs(*(a.abs() for a in wide))
        worst = {}
        for kind in ("3xtf32", "tf32", "strict"):
            program, _ = program_for(bench, kind, direction, problem, False)
            if program is None:
                continue
            found = torch.full_like(exact, math.nan, dtype=torch.float32)
            bench.ready(program, **buffers, **{target: found})()
            bench.cuda.synchronize()
            worst[kind] = float(((found.double() - exact).abs() / unit).max())
        for kind, allow in (("cuDNN fp32", False), ("cuDNN tf32", True)):
            torch.backends.cudnn.allow_tf32 = allow
            worst[kind] = float(((theirs(x, w, dy).double() - exact).abs() / unit).max())
        bad = worst.get("3xtf32", 0) > 1 or worst.get("strict", 0) > 1 or any(map(math.isnan, worst.values()))
        cells = (f"{k} {v:.3f}" for k, v in worst.items())
        row("FAILED" if bad else "error/bound", title, sign, DIRECTIONS[direction], *cells)


def stage_halves():
    """float16 and bfloat16 through the public functions at real sizes, against float64: error / bound."""
    import numpy as np

    import fastconv as fc
    from fastconv.testing import bounds

    torch = peer()
    if torch is None:
        return row("not run", "torch is not installed")
    host = lambda a: a.double().cpu().numpy()  # noqa: E731
    for title in ("resnet conv1", "resnet 56 3x3 64", "resnet 56 s2 128", "resnet 14 1x1 1024"):
        _, C, size, K, kernel, stride, padding = SHAPES[title]
        options, taps = (stride, padding), kernel * kernel
        for dtype in ("float16", "bfloat16"):
            torch.manual_seed(0)
            make = lambda *s: torch.randn(*s, device="cuda", dtype=getattr(torch, dtype))  # noqa: B023, E731
            x, w = make(2, C, size, size), make(K, C, kernel, kernel)
            dy = torch.randn_like(fc.cuda.conv2d(x, w, None, *options))
            found = fc.cuda.conv2d(x, w, None, *options), *fc.cuda.conv2d_backward(dy, x, w, *options)
            assert all(a.dtype == x.dtype for a in found)
            wide = [a.double() for a in (dy, x, w)]
            lengths = C * taps, K * taps, dy[:, 0].numel(), dy[:, 0].numel()
            exact, size_of = (
                (torch.nn.functional.conv2d(b, c, None, *options),
                 *torch.ops.aten.convolution_backward(
                     a, b, c, [K], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True] * 3
                 ))
                for a, b, c in (wide, [a.abs() for a in wide])
            )  # fmt: skip
            worst = {}
            for name, a, b, m, length in zip(("y", "dx", "dweight", "dbias"), found, exact, size_of, lengths):
                ratio = np.abs(host(a) - host(b)) / bounds.bound(host(m), length, dtype)
                worst[name] = float(ratio.max())
            bad = not all(ratio <= 1 for ratio in worst.values())
            ran = fc.cuda.plan("conv2d", x, w, None, *options).algorithm
            cells = (f"{name} {ratio:.3f}" for name, ratio in worst.items())
            row("FAILED" if bad else "error/bound", title, dtype, ran, *cells)


def public(torch, kind, direction, problem, last):
    """A function that computes a 16-bit convolution through the public functions, in torch's tensors."""
    import fastconv as fc

    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[kind]
    shape = torch.channels_last if last else torch.contiguous_format
    make = lambda *s: torch.randn(*s, device="cuda", dtype=dtype).to(memory_format=shape)  # noqa: E731
    x, w, dy = make(*problem.x_shape), make(*problem.weight_shape).contiguous(), make(*problem.y_shape)
    options = problem.stride[1:], problem.pad_low[1:]
    if direction == "conv":
        return lambda: fc.cuda.conv2d(x, w, None, *options)
    mask = [direction == "conv_backward_input", direction == "conv_backward_weight", False]
    return lambda: fc.cuda.conv2d_backward(dy, x, w, *options, output_mask=mask)


def peer():
    try:
        import torch

        return torch if torch.cuda.is_available() else None
    except ImportError:
        return None


def cudnn(torch, kind, direction, problem, last):
    """A function that runs cuDNN once, or None."""
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(kind, torch.float32)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    shape = torch.channels_last if last else torch.contiguous_format
    make = lambda *s: torch.randn(*s, device="cuda", dtype=dtype).to(memory_format=shape)  # noqa: E731
    x, w, dy = make(*problem.x_shape), make(*problem.weight_shape), make(*problem.y_shape)
    stride, padding = list(problem.stride[1:]), list(problem.pad_low[1:])
    if direction == "conv":
        return lambda: torch.ops.aten.convolution(x, w, None, stride, padding, [1, 1], False, [0, 0], 1)
    mask = [direction == "conv_backward_input", direction == "conv_backward_weight", False]
    return lambda: torch.ops.aten.convolution_backward(
        dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, mask
    )


def stage_speed(kind):
    from fastconv.cuda import select

    bench, torch = Bench(), peer()
    width = 2 if kind in ("bf16", "f16") else 4
    ratios = {}
    for title, shape in SHAPES.items():
        problem = problem_of(shape)
        for direction, short in DIRECTIONS.items():
            for last in (True, False):
                layout = "NHWC" if last else "NCHW"
                program, name = program_for(bench, kind, direction, problem, last)
                if program is None:
                    if last:
                        row(title, short, "refused:", name)
                    continue
                buffers = {"weight": bench.empty(math.prod(problem.weight_shape) * width)}
                for view in select.contiguous_views(direction, problem):
                    buffers[view.pointer.name] = bench.empty(
                        problem.N * view.channels * math.prod(view.size) * width
                    )
                buffers["dweight"] = bench.empty(math.prod(problem.weight_shape) * width)
                ours = bench.seconds(bench.ready(program, **buffers))
                products = [s for s in program.steps if s.kernel.name.startswith(("igemm", "wgrad", "gemm"))]
                alone = bench.seconds(bench.ready(program._replace(steps=tuple(products)), **buffers))
                cells = [f"{ours * 1e6:8.1f} us", f"products {alone * 1e6:8.1f} us"]
                cells += [f"{problem.flops / ours / 1e12:6.1f} TFLOP/s"]
                if torch is not None and width == 2:
                    called = bench.seconds(public(torch, kind, direction, problem, last))
                    cells += [f"public {called * 1e6:8.1f} us"]
                if torch is not None:
                    theirs = bench.seconds(cudnn(torch, kind, direction, problem, last))
                    ratios.setdefault((short, layout), []).append(theirs / ours)
                    cells += [f"cuDNN {theirs * 1e6:8.1f} us", f"ratio {theirs / ours:5.2f}"]
                row(title, short, layout, name, *cells)
                del buffers
                if torch is not None:
                    torch.cuda.empty_cache()
    for (short, layout), values in ratios.items():
        row("median", short, layout, f"ratio {statistics.median(values):.2f}", f"of {len(values)} shapes")


def stage_memory():
    """GB/s of the public functions, against the bandwidth of a copy of the same size."""
    import numpy as np

    import fastconv as fc

    bench, torch = Bench(), peer()
    n = 1 << 28
    source, target = bench.empty(n), bench.empty(n)
    driver = bench.cuda.cudadrv.driver
    copy = 2 * n / bench.seconds(lambda: driver.device_to_device(target, source, n))
    row("copy", f"{copy / 1e9:.0f} GB/s")
    x = fc.cuda.to_device(np.ones((1 << 16, 1000), np.float32))
    labels = fc.cuda.to_device(np.zeros(1 << 16, np.int64))
    image = fc.cuda.to_device(np.ones((64, 64, 112, 112), np.float32))
    w = fc.cuda.to_device(np.ones((64, 1, 3, 3), np.float32))
    works = {
        "relu": (lambda: fc.cuda.relu(x), 2 * x.nbytes),
        "sigmoid": (lambda: fc.cuda.sigmoid(x), 2 * x.nbytes),
        "relu_backward": (lambda: fc.cuda.relu_backward(x, x), 3 * x.nbytes),
        "softmax 1000": (lambda: fc.cuda.softmax(x), 2 * x.nbytes),
        "cross-entropy 1000": (lambda: fc.cuda.softmax_cross_entropy(x, labels), 2 * x.nbytes),
        "max_pool2d 3x3 s2": (lambda: fc.cuda.max_pool2d(image, 3, 2, 1), image.nbytes * 5 // 4),
        "depthwise 3x3": (lambda: fc.cuda.conv2d(image, w, padding=1, groups=64), 2 * image.nbytes),
    }
    theirs = {}
    if torch is not None:
        F = torch.nn.functional
        tx, ti = torch.ones(1 << 16, 1000, device="cuda"), torch.ones(64, 64, 112, 112, device="cuda")
        tl, tw = (
            torch.zeros(1 << 16, dtype=torch.int64, device="cuda"),
            torch.ones(64, 1, 3, 3, device="cuda"),
        )
        grad = tx.clone().requires_grad_()
        theirs = {
            "relu": lambda: F.relu(tx), "sigmoid": lambda: torch.sigmoid(tx),
            "relu_backward": lambda: torch.ops.aten.threshold_backward(tx, tx, 0),
            "softmax 1000": lambda: F.softmax(tx, 1),
            "cross-entropy 1000": lambda: torch.autograd.grad(F.cross_entropy(grad, tl), grad),
            "max_pool2d 3x3 s2": lambda: F.max_pool2d(ti, 3, 2, 1),
            "depthwise 3x3": lambda: F.conv2d(ti, tw, padding=1, groups=64),
        }  # fmt: skip
    for name, (work, nbytes) in works.items():
        seconds = bench.seconds(work)
        cells = [f"{nbytes / seconds / 1e9:6.0f} GB/s", f"{nbytes / seconds / copy:5.0%} of copy"]
        if name in theirs:
            other = bench.seconds(theirs[name])
            cells += [f"torch {nbytes / other / 1e9:6.0f} GB/s", f"ratio {other / seconds:.2f}"]
        row(name, *cells)


def stage_launch():
    """Host time of a launch: numba's dispatcher, the public function, a prepared program, a CUDA graph."""
    import numpy as np
    from numba import cuda

    import fastconv as fc
    from fastconv.cuda import memory_bound

    bench = Bench()

    @cuda.jit
    def nothing(x):
        pass

    x = fc.cuda.to_device(np.ones(1024, np.float32))
    program = memory_bound.activation("f32", "relu", 1024, 0.0)
    prepared = bench.ready(program, x=x, out=bench.empty(4096))
    works = {
        "dispatcher": lambda: nothing[1, 32](x),
        "fc.cuda.relu": lambda: fc.cuda.relu(x),
        "prepared": prepared,
    }
    torch = peer()
    if torch is not None:
        graph, inner = torch.cuda.CUDAGraph(), bench.runner.prepare(program)
        addresses = {name: bench.address(a) for name, a in prepared.keep.items()}
        with torch.cuda.graph(graph):
            inner(addresses, torch.cuda.current_stream().cuda_stream)
        works["graph of one"] = graph.replay
        tx = torch.ones(1024, device="cuda")
        works["torch relu"] = lambda: torch.relu(tx)
        works["fc.cuda.relu of torch"] = lambda: fc.cuda.relu(tx)
    for name, work in works.items():
        for _ in range(50):
            work()
        cuda.synchronize()
        samples = []
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(200):
                work()
            samples.append((time.perf_counter() - start) / 200)
            cuda.synchronize()
        row(name, f"{statistics.median(samples) * 1e6:.2f} us on the host")


STAGES = {
    "device": stage_device, "build": stage_build, "check": stage_check, "memory-check": stage_memory_check,
    "operations": stage_operations, "accuracy": stage_accuracy, "halves": stage_halves,
    "speed": stage_speed, "memory": stage_memory, "launch": stage_launch,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
