"""Stages of `gpu_report` that measure: kernels and public functions against peers and a copy; launches."""

import itertools
import math
import statistics
import time
from functools import partial

from gpu_common import DIRECTIONS, LAYERS, SHAPES, Bench, peer, problem_of, program_for, row


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


def stage_linear():
    """Every kind of arithmetic of the fully connected layer, kernels alone and the public functions, against
    torch's products of matrices.
    """
    from fastconv.cuda import dense, select

    bench, torch = Bench(), peer()
    kinds = {"bf16": ("bf16", "fast"), "f16": ("f16", "fast"), "tf32": ("f32", "tf32")}
    kinds |= {"3xtf32": ("f32", "fast"), "strict": ("f32", "strict")}
    for (title, shape), (kind, (dtype, precision)) in itertools.product(LAYERS.items(), kinds.items()):
        layer, width = dense.Layer(*shape), 2 if dtype != "f32" else 4
        M, inputs, outputs = shape
        sizes = dict(x=M * inputs, dx=M * inputs, y=M * outputs, dy=M * outputs)
        sizes |= dict(weight=inputs * outputs, dweight=inputs * outputs)
        if torch is not None:
            torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
            word = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
            x, w, dy = (
                torch.randn(*s, device="cuda", dtype=word)
                for s in ((M, inputs), (outputs, inputs), (M, outputs))
            )
            products = lambda: x @ w.T, lambda: dy @ w, lambda: dy.T @ x  # noqa: B023, E731
            peers = dict(zip(dense.DIRECTIONS, products))
        for direction in dense.DIRECTIONS:
            program = next(select.linear_candidates(direction, layer, dtype, precision, bench.device), None)
            if program is None:
                row(title, direction, kind, "refused")
                continue
            buffers = {name: bench.empty(count * width) for name, count in sizes.items()}
            ours = bench.seconds(bench.ready(program, **buffers))
            moved = (M * inputs + M * outputs + inputs * outputs) * width
            cells = [f"{ours * 1e6:8.1f} us", f"{2 * M * inputs * outputs / ours / 1e12:6.1f} TFLOP/s"]
            cells += [f"{moved / ours / 1e9:6.0f} GB/s"]
            if torch is not None:
                theirs = bench.seconds(peers[direction])
                cells += [f"torch {theirs * 1e6:8.1f} us", f"ratio {theirs / ours:5.2f}"]
            row(title, direction, kind, *cells)


def stage_groups():
    """Grouped and depthwise convolutions through the public functions, against cuDNN."""
    import fastconv as fc

    torch = peer()
    if torch is None:
        return row("not run", "torch is not installed")
    bench = Bench()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    shapes = {  # N, C, size, groups, kernel, stride
        "resnext 32x8": (32, 256, 56, 32, 3, 1), "resnext 32x16, s2": (32, 512, 28, 32, 3, 2),
        "depthwise 3x3": (64, 64, 112, 64, 3, 1), "depthwise 3x3, s2": (64, 64, 112, 64, 3, 2),
        "depthwise 5x5": (32, 240, 28, 240, 5, 1), "depthwise 7x7": (32, 192, 56, 192, 7, 1),
    }  # fmt: skip
    for title, (N, C, size, groups, kernel, stride) in shapes.items():
        for word in ("float32", "bfloat16"):
            options = dict(stride=stride, padding=kernel // 2, groups=groups)
            make = lambda *s: torch.randn(*s, device="cuda", dtype=getattr(torch, word))  # noqa: B023, E731
            x, w = make(N, C, size, size), make(C, C // groups, kernel, kernel)
            dy = torch.randn_like(torch.nn.functional.conv2d(x, w, None, **options))
            sides = [[v] * 2 for v in (stride, kernel // 2, 1)]
            backward = torch.ops.aten.convolution_backward
            for i, (direction, short) in enumerate(DIRECTIONS.items()):
                mask = [i == 1, i == 2, False]
                if i == 0:
                    ours = partial(fc.cuda.conv2d, x, w, None, **options)
                    theirs = partial(torch.nn.functional.conv2d, x, w, None, **options)
                else:
                    ours = partial(fc.cuda.conv2d_backward, dy, x, w, output_mask=mask, **options)
                    theirs = partial(backward, dy, x, w, None, *sides, False, [0, 0], groups, mask)
                ran = fc.cuda.plan(direction.replace("conv", "conv2d", 1), x, w, **options).algorithm
                mine, other = bench.seconds(ours) * 1e6, bench.seconds(theirs) * 1e6
                cells = f"{mine:8.1f} us", f"cuDNN {other:8.1f} us", f"ratio {other / mine:5.2f}"
                row(title, word, short, ran, *cells)


def stage_memory():
    """GB/s of the public functions, against the bandwidth of a copy of the same size."""
    bench, torch = Bench(), peer()
    n = 1 << 28
    source, target = bench.empty(n), bench.empty(n)
    driver = bench.cuda.cudadrv.driver
    copy = 2 * n / bench.seconds(lambda: driver.device_to_device(target, source, n))
    row("copy", f"{copy / 1e9:.0f} GB/s")
    for dtype in ("float32", "bfloat16"):
        for name, (work, nbytes, theirs) in memory_works(dtype, torch).items():
            seconds = bench.seconds(work)
            cells = [f"{nbytes / seconds / 1e9:6.0f} GB/s", f"{nbytes / seconds / copy:5.0%} of copy"]
            if theirs is not None:
                other = bench.seconds(theirs)
                cells += [f"torch {nbytes / other / 1e9:6.0f} GB/s", f"ratio {other / seconds:.2f}"]
            row(name, dtype, *cells)


def memory_works(dtype, torch):
    """name -> (what we do, bytes that it has to move, what torch does or None)."""
    import numpy as np

    import fastconv as fc

    size = 4 if dtype == "float32" else 2
    make = lambda *shape: fc.cuda.to_device(np.ones(shape, np.float32), dtype)  # noqa: E731
    x, image, w = make(1 << 16, 1000), make(64, 64, 112, 112), make(64, 1, 3, 3)
    labels = fc.cuda.to_device(np.zeros(1 << 16, np.int64))
    row_bytes, image_bytes = size * (1 << 16) * 1000, size * 64 * 64 * 112 * 112
    pooled, indices = fc.cuda.max_pool2d(image, 3, 2, 1, return_indices=True)
    mean = fc.cuda.avg_pool2d(image, 2)
    mask = fc.cuda.dropout(image, rng=np.random.default_rng(0))[1]
    numbers = [fc.cuda.to_device(np.ones(64, np.float32)) for _ in range(4)]
    response = (5, 1e-4, 0.75, 2.0)
    works = {
        "relu": (lambda: fc.cuda.relu(x), 2 * row_bytes),
        "sigmoid": (lambda: fc.cuda.sigmoid(x), 2 * row_bytes),
        "relu_backward": (lambda: fc.cuda.relu_backward(x, x), 3 * row_bytes),
        "softmax 1000": (lambda: fc.cuda.softmax(x), 2 * row_bytes),
        "softmax_backward 1000": (lambda: fc.cuda.softmax_backward(x, x), 3 * row_bytes),
        "cross-entropy 1000": (lambda: fc.cuda.softmax_cross_entropy(x, labels), 2 * row_bytes),
        "dropout_backward": (
            lambda: fc.cuda.dropout_backward(image, mask, 0.5), 2 * image_bytes + image_bytes // size
        ),
        "max_pool2d 3x3 s2": (lambda: fc.cuda.max_pool2d(image, 3, 2, 1), image_bytes * 5 // 4),
        "max_pool2d_backward 3x3 s2": (
            lambda: fc.cuda.max_pool2d_backward(pooled, indices, (64, 64, 112, 112)),
            image_bytes * 5 // 4 + 8 * image_bytes // size // 4,
        ),
        "avg_pool2d 2x2": (lambda: fc.cuda.avg_pool2d(image, 2), image_bytes * 5 // 4),
        "avg_pool2d_backward 2x2": (
            lambda: fc.cuda.avg_pool2d_backward(mean, (64, 64, 112, 112), 2), image_bytes * 5 // 4
        ),
        # statistics cost one more reading than the elements
        "batch_norm": (lambda: fc.cuda.batch_norm(image, *numbers, training=True), 3 * image_bytes),
        "batch_norm, given": (lambda: fc.cuda.batch_norm(image, *numbers), 2 * image_bytes),
        "batch_norm_backward": (
            lambda: fc.cuda.batch_norm_backward(image, image, numbers[0]), 5 * image_bytes
        ),
        "local_response_norm 5": (lambda: fc.cuda.local_response_norm(image, *response), 2 * image_bytes),
        "local_response_norm_backward 5": (
            lambda: fc.cuda.local_response_norm_backward(image, image, *response), 3 * image_bytes
        ),
        "depthwise 3x3": (lambda: fc.cuda.conv2d(image, w, padding=1, groups=64), 2 * image_bytes),
    }  # fmt: skip
    peers = {}
    if torch is not None:
        F, kind = torch.nn.functional, getattr(torch, dtype)
        ones = lambda *shape: torch.ones(*shape, device="cuda", dtype=kind)  # noqa: E731
        tx, ti, tw = ones(1 << 16, 1000), ones(64, 64, 112, 112), ones(64, 1, 3, 3)
        tl = torch.zeros(1 << 16, dtype=torch.int64, device="cuda")
        tn = [torch.ones(64, device="cuda") for _ in range(4)]
        grad, aten = tx.clone().requires_grad_(), torch.ops.aten
        saved = tn[0], tn[1]  # mean and 1 / sqrt(var), which torch keeps of the forward pass
        peers = {
            "relu": lambda: F.relu(tx), "sigmoid": lambda: torch.sigmoid(tx),
            "relu_backward": lambda: aten.threshold_backward(tx, tx, 0),
            "softmax 1000": lambda: F.softmax(tx, 1),
            "softmax_backward 1000": lambda: aten._softmax_backward_data(tx, tx, 1, kind),
            "cross-entropy 1000": lambda: torch.autograd.grad(F.cross_entropy(grad, tl), grad),
            "max_pool2d 3x3 s2": lambda: F.max_pool2d(ti, 3, 2, 1),
            "avg_pool2d 2x2": lambda: F.avg_pool2d(ti, 2),
            "batch_norm": lambda: F.batch_norm(ti, tn[2], tn[3], tn[0], tn[1], True),
            "batch_norm, given": lambda: F.batch_norm(ti, tn[2], tn[3], tn[0], tn[1]),
            "batch_norm_backward": lambda: aten.native_batch_norm_backward(
                ti, ti, tn[0], None, None, *saved, True, 1e-5, [True] * 3
            ),
            "depthwise 3x3": lambda: F.conv2d(ti, tw, padding=1, groups=64),
        }  # fmt: skip
    return {name: (*work, peers.get(name)) for name, work in works.items()}


def stage_launch():
    """Host time of whole warm calls: public functions on arrays of every kind there is, and what a result of
    that kind costs of it; a CUDA graph of a public call, replayed on other numbers; numba's dispatcher.
    """
    import dummy_calls
    import numpy as np
    from numba import cuda

    import fastconv as fc
    from fastconv.cuda import _arrays

    def shown(work):
        """In loops so short that the queue of the device never runs full."""
        for _ in range(20):
            work()
        cuda.synchronize()
        samples = []
        for _ in range(15):
            start = time.perf_counter()
            for _ in range(50):
                work()
            samples.append((time.perf_counter() - start) / 50)
            cuda.synchronize()
        return f"{statistics.median(samples) * 1e6:.2f} us on the host"

    torch, single = peer(), np.dtype(np.float32)
    kinds = {"own": lambda shape, dtype: fc.cuda.to_device(np.zeros(shape, dtype))}
    kinds["numba"] = lambda shape, dtype: cuda.to_device(np.zeros(shape, dtype))
    if torch is not None:
        kinds["torch"] = lambda shape, dtype: torch.from_numpy(np.zeros(shape, dtype)).cuda()
    for kind, make in kinds.items():
        like = make((2,), np.float32)
        of, stream = _arrays.kind_of(like), _arrays.stream_of(like, 0)
        row(kind, "a result", shown(lambda: of.empty(like, (2304,), single, 0, stream)))  # noqa: B023
        with fc.cuda.deferred_checks():
            for name, call in dummy_calls.calls(make).items():
                if name in dummy_calls.QUICK:
                    row(kind, name, shown(call))

    @cuda.jit
    def nothing(x):
        pass

    x = cuda.to_device(np.ones(1024, np.float32))
    row("numba's dispatcher", "an empty kernel", shown(lambda: nothing[1, 32](x)))
    if torch is not None:
        tx = torch.ones(1024, device="cuda")
        row("torch", "torch.relu", shown(lambda: torch.relu(tx)))
        graph = torch.cuda.CUDAGraph()
        fc.cuda.relu(tx)
        with torch.cuda.graph(graph):
            ty = fc.cuda.relu(tx)
        for value in (3.0, -1.0):
            tx.fill_(value)
            graph.replay()
            torch.cuda.synchronize()
            row("graph" if (ty == max(value, 0)).all() else "FAILED", "of fc.cuda.relu", shown(graph.replay))

