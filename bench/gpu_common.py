"""What stages of `gpu_report` share: shapes, programs on device memory, times, peers, rows of the report."""

import json
import statistics
import time

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
# rows, inputs, outputs of fully connected layers
LAYERS = {
    "vgg fc6, one image": (1, 25088, 4096), "vgg fc7, 16 images": (16, 4096, 4096),
    "vgg fc7, 256 images": (256, 4096, 4096), "resnet fc, 256 images": (256, 2048, 1000),
    "4096 rows": (4096, 4096, 4096),
}  # fmt: skip
DIRECTIONS = {"conv": "fprop", "conv_backward_input": "dgrad", "conv_backward_weight": "wgrad"}
KINDS = {"bf16": ("bf16", "wgmma"), "f16": ("f16", "wgmma"), "tf32": ("f32", "wgmma_tf32")}
KINDS |= {"3xtf32": ("f32", "wgmma_3xtf32"), "strict": ("f32", "ffma")}
# what a row of the table above falls back to for a direction or a device that its algorithm does not have
OLDER = {"wgmma": "mma", "wgmma_tf32": "mma_tf32", "wgmma_3xtf32": "mma_3xtf32"}
ALGORITHMS = ("ffma", "mma", "mma_tf32", "mma_3xtf32", "wgmma", "wgmma_tf32", "wgmma_3xtf32")


def row(what, *values):
    """Hand a row to the report at once, so that a stage that is killed later keeps it."""
    print(MARK + json.dumps([what, *map(str, values)]), flush=True)


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
    count = bench.device.multiprocessors
    return select.program_of(name, direction, problem, dtype, *moved, multiprocessors=count), name


def peer():
    try:
        import torch

        return torch if torch.cuda.is_available() else None
    except ImportError:
        return None
