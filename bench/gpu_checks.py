"""The stages of `gpu_report` that build and check: every kernel compiled, results against float64."""

import itertools
import math
import os
import time
from functools import partial

from gpu_common import DIRECTIONS, LAYERS, SHAPES, Bench, peer, problem_of, program_for, row, strides


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
    import test_cuda_dense
    from test_cuda_kernels import BACKWARD, CASES, SMALL, WEIGHT
    from test_cuda_kernels import problem_of as make

    from fastconv.cuda import dense, select

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
    layers = [dense.Layer(*shape) for shape in LAYERS.values()]
    for bias in (False, True):
        layers += [layer._replace(bias=bias) for layer in test_cuda_dense.LAYERS.values()]
    for layer, direction in itertools.product(layers, dense.DIRECTIONS):
        for dtype, precision in itertools.product(("f32", "f16", "bf16"), ("strict", "fast", "tf32")):
            for program in select.linear_candidates(direction, layer, dtype, precision, device):
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


def stage_linear_check():
    """Every algorithm of the fully connected layer on integer-valued cases: results must be exact."""
    import numpy as np
    import test_cuda_dense as cases
    from test_cuda_kernels import decode, encode, integers

    from fastconv.cuda import dense, select

    bench = Bench()
    layers = sorted([*cases.LAYERS.values(), dense.Layer(5, 1000, 300, True), dense.Layer(200, 264, 520)])
    for direction in dense.DIRECTIONS:
        passed = 0
        for layer, dtype in itertools.product(layers, ("f32", "f16", "bf16")):
            layer = layer._replace(bias=layer.bias and direction == "linear")
            rng = np.random.default_rng(0)
            arrays = cases.arrays_of(layer, rng, lambda rng, shape: integers(rng, shape, -1, 2))
            expected = cases.product(direction, arrays)
            expected = decode(encode(expected, dtype), dtype)
            for precision in ("strict", "fast", "tf32"):
                for program in select.linear_candidates(direction, layer, dtype, precision, bench.device):
                    buffers = {name: bench.put(encode(a, dtype)) for name, a in arrays.items()}
                    out = bench.empty(expected.size * (4 if dtype == "f32" else 2))
                    bench.ready(program, **buffers, **{cases.TARGET[direction]: out})()
                    bench.cuda.synchronize()
                    bits = out.copy_to_host().view(np.float32 if dtype == "f32" else np.uint16)
                    wrong = int((decode(bits, dtype).reshape(expected.shape) != expected).sum())
                    if wrong:
                        name = program.steps[-1].kernel.name
                        row("FAILED", direction, str(layer), dtype, name, f"{wrong} of {expected.size}")
                    passed += not wrong
        row("exact", direction, f"{passed} programs")


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
        dy = rng.integers(-3, 4, y.shape).astype(np.float32)
        found = fc.cuda.conv2d_backward(
            *map(fc.cuda.to_device, (dy, image, w)), groups=8, padding=1, stride=stride
        )
        expected = fc.conv2d_backward(dy, image, w, groups=8, padding=1, stride=stride)
        assert all((fc.cuda.to_host(a) == b).all() for a, b in zip(found, expected))
    row("passed", "depthwise")
    memory_checks_in_16_bits()


def memory_checks_in_16_bits():
    """All cases of the conformance tests but for convolutions, in both dtypes of 16 bits."""
    from cuda_device import check_short

    from fastconv import testing
    from fastconv.testing.operations import Convolution, Linear, Transposed

    for dtype in ("float16", "bfloat16"):
        passed, failed = 0, []
        for case in testing.cases():
            if isinstance(case, (Convolution, Transposed, Linear)):
                continue
            try:
                check_short(case, dtype, case.kinds[0])
                passed += 1
            except AssertionError as error:
                failed.append(str(error))
        for error in failed[:5]:
            row("FAILED", dtype, error[:200])
        row("passed", dtype, f"{passed} of {passed + len(failed)} cases")


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
