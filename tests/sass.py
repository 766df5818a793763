"""Machine code of the generated kernels, disassembled: `python tests/sass.py` prints the figures of the
main ones as a table.

Needs numba-cuda with its toolchain wheels and the wheels nvidia-cuda-nvdisasm and nvidia-cuda-cuobjdump; no
GPU.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fastconv.cuda import _compile
from fastconv.cuda.gen import (
    elementwise,
    gemm_f32,
    igemm_sm80,
    igemm_sm90,
    layout,
    memory_bound,
    norm,
    pool,
    rows,
    thin_f32,
    wgrad_depthwise,
    wgrad_sm80,
    wgrad_sm90,
)
from fastconv.cuda.gen.vectors import Vectors

FLOATS, SHORTS, ONE = Vectors("f32", 4), Vectors("bf16", 8), Vectors("f32", 1)

MAIN = {
    "wgmma bf16": (igemm_sm90.kernel("bf16", bn=256), 90),
    "wgmma f16, bias, relu": (igemm_sm90.kernel("f16", bn=128, bias="channel", activation="relu"), 90),
    "wgmma bf16, small": (igemm_sm90.kernel("bf16", bn=64, consumers=1, blocks=2, planar=True), 90),
    "wgmma bf16 3-d": (igemm_sm90.kernel("bf16", rank=3, bn=128), 90),
    "wgmma tf32": (igemm_sm90.kernel("tf32", bn=128, bias="channel", activation="sigmoid"), 90),
    "wgmma 3xtf32": (igemm_sm90.kernel("f32", bn=128), 90),
    "wgmma 3xtf32, planar": (
        igemm_sm90.kernel("f32", bn=64, planar=True, bias="channel", activation="tanh"), 90
    ),
    "wgmma bf16, few rows": (igemm_sm90.kernel("bf16", bn=16, consumers=1, blocks=2, bias="channel"), 90),
    "wgmma bf16, turned": (igemm_sm90.kernel("bf16", bn=128, turned=True), 90),
    "wgmma 3xtf32, few rows": (
        igemm_sm90.kernel("f32", bn=8, consumers=1, blocks=2, planar=True, bias="position"), 90
    ),
    "wgmma weight gradient, direct": (wgrad_sm90.kernel("bf16", direct=True), 90),
    "wgmma weight gradient": (wgrad_sm90.kernel("bf16"), 90),
    "wgmma weight gradient, f16": (wgrad_sm90.kernel("f16", bn=64), 90),
    "mma bf16": (igemm_sm80.kernel("bf16"), 80),
    "mma f16, bias, sigmoid": (igemm_sm80.kernel("f16", True, "sigmoid"), 80),
    "mma tf32, bias, relu": (igemm_sm80.kernel("tf32", True, "relu"), 80),
    "mma 3xtf32": (igemm_sm80.kernel("f32"), 80),
    "mma bf16, few rows": (igemm_sm80.kernel("bf16", tile=igemm_sm80.THIN), 80),
    "mma 3xtf32, few rows": (igemm_sm80.kernel("f32", True, tile=igemm_sm80.THIN), 80),
    "mma 3xtf32, few channels": (igemm_sm80.kernel("f32", tile=igemm_sm80.TALL), 80),
    "mma weight gradient, bf16": (wgrad_sm80.kernel("bf16"), 80),
    "mma weight gradient, f16 on sm_90a": (wgrad_sm80.kernel("f16"), 90),
    "mma weight gradient, tf32": (wgrad_sm80.kernel("tf32"), 80),
    "mma weight gradient, tf32 on sm_90a": (wgrad_sm80.kernel("tf32"), 90),
    "mma weight gradient, 3xtf32": (wgrad_sm80.kernel("f32"), 80),
    "mma weight gradient, 3xtf32 on sm_90a": (wgrad_sm80.kernel("f32"), 90),
    "ffma": (gemm_f32.forward(), 80),
    "ffma weight gradient": (gemm_f32.weight_gradient(), 80),
    "ffma, few rows": (thin_f32.kernel(4, bias=True), 80),
    "ffma, few rows, turned": (thin_f32.kernel(4, True), 80),
    "channels last, 16 bit": (layout.channels_last("bf16", True), 80),
    "channels last, 16 bit, odd planes": (layout.channels_last("f16", False), 80),
    "gather, 16 bit": (layout.gather(2), 80),
    "weight, 16 bit": (layout.pack_weight("bf16"), 80),
    "sum of parts, bf16": (layout.sum_parts("bf16"), 80),
    "sum of parts, f16": (layout.sum_parts("f16"), 80),
    "weight split for 3xtf32": (layout.pack_weight("f32"), 80),
    "relu": (elementwise.activation("relu"), 80),
    "relu, bf16": (elementwise.activation("relu", False, "bf16"), 80),
    "sigmoid, f16": (elementwise.activation("sigmoid", False, "f16"), 80),
    "gradient of tanh, bf16": (elementwise.activation("tanh", True, "bf16"), 80),
    "dropout, bf16": (elementwise.dropout("bf16"), 80),
    "sum, f16": (elementwise.add("f16"), 80),
    "softmax of 1024": (rows.softmax(FLOATS, 8), 80),
    "softmax of 1024, bf16": (rows.softmax(SHORTS, 4), 80),
    "gradient of softmax, bf16": (rows.softmax_backward(SHORTS, 4), 80),
    "gradient of log-softmax": (rows.softmax_backward(FLOATS, 8, True), 80),
    "cross-entropy of 1024": (rows.cross_entropy(FLOATS, 8, ONE), 80),
    "cross-entropy of 1024, bf16": (rows.cross_entropy(SHORTS, 4, ONE), 80),
    "cross-entropy of odd rows, f16": (rows.cross_entropy(Vectors("f16", 1), 32, Vectors("f16", 1)), 80),
    "max pool 3x3": (memory_bound.max_pool((3, 3), True), 80),
    "max pool 3x3, bf16": (memory_bound.max_pool((3, 3), True, "bf16"), 80),
    "gradient of maxima": (pool.max_pool_backward(16384, FLOATS), 80),
    "gradient of maxima, f16": (pool.max_pool_backward(16384, Vectors("f16", 8)), 80),
    "average 3x3, f16": (pool.avg_pool((3, 3), "padded", "f16"), 80),
    "average 7x7, bf16": (pool.avg_pool((7, 7), "fixed", "bf16"), 80),
    "gradient of average 2x2, f16": (pool.avg_pool_backward((2, 2), (2, 2), "fixed", SHORTS), 80),
    "gradient of average 3x3": (pool.avg_pool_backward((3, 3), (2, 2), "fixed", FLOATS), 80),
    "gradient of average 3x3, inside, bf16": (
        pool.avg_pool_backward((3, 3), (2, 2), "valid", Vectors("bf16", 2)),
        80,
    ),
    "channels: moments, bf16": (norm.parts(norm.MOMENTS, SHORTS), 80),
    "channels: moments and products, bf16": (norm.parts(norm.BACKWARD, SHORTS), 80),
    "channels: moments and products": (norm.parts(norm.BACKWARD, FLOATS), 80),
    "channels: given, f16, odd rows": (norm.parts(norm.GIVEN, Vectors("f16", 1)), 80),
    "channels: sum, bf16": (norm.parts(norm.SUM, SHORTS), 80),
    "channels: sums of parts, bf16": (norm.channel_sums("bf16"), 80),
    "batch norm: statistics": (norm.statistics("f32"), 80),
    "batch norm: running statistics, bf16": (norm.running("bf16"), 80),
    "batch norm: gradients": (norm.gradients("f32", True), 80),
    "batch norm: elements, bf16": (norm.normalise(SHORTS), 80),
    "batch norm: dx, bf16": (norm.normalise(SHORTS, True), 80),
    "batch norm: dx": (norm.normalise(FLOATS, True), 80),
    "response norm of 5, bf16": (norm.response(5, Vectors("bf16", 2)), 80),
    "gradient of response norm of 5, f16": (norm.response(5, Vectors("f16", 2), True), 80),
    "gradient of response norm of 5": (norm.response(5, Vectors("f32", 1), True), 80),
    "depthwise weight gradient, 3x3": (wgrad_depthwise.kernel("f32", (3, 3), 1, 1), 80),
    "depthwise weight gradient, 5x5, f16": (wgrad_depthwise.kernel("f16", (5, 5), 2, 1), 80),
    "depthwise weight gradient, 7x7, bf16": (wgrad_depthwise.kernel("bf16", (7, 7), 2, 1), 80),
    "depthwise 3x3": (memory_bound.depthwise((3, 3), True, "relu"), 80),
}


class Figures(NamedTuple):
    """Of one kernel: registers a thread, bytes of stack and local memory, instructions by name, total."""

    registers: int
    stack: int
    local: int
    operations: Counter
    text: str

    def count(self, prefix):
        return sum(
            n for name, n in self.operations.items() if name == prefix or name.startswith(prefix + ".")
        )


def missing():
    """Why nothing can be disassembled here, or None."""
    reason = _compile.missing()
    if reason is None and tools() is None:
        reason = "nvdisasm and cuobjdump are not installed (nvidia-cuda-nvdisasm, nvidia-cuda-cuobjdump)"
    return reason


def tools():
    """The folder of the disassemblers, or None."""
    try:
        import nvidia
    except ImportError:
        return None
    for root in nvidia.__path__:
        for folder in Path(root).glob("cu*/bin"):
            if (folder / "nvdisasm").exists() and (folder / "cuobjdump").exists():
                return folder
    return None


def figures(kernel, arch):
    """Compile a kernel and read its machine code."""
    code, _ = _compile.cubin(kernel, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        run = lambda *command: (
            subprocess.run(  # noqa: E731
                [*command, file.name], capture_output=True, text=True, check=True
            ).stdout
        )
        text = run(tools() / "nvdisasm", "-c")
        usage = re.search(r"REG:(\d+) STACK:(\d+).* LOCAL:(\d+)", run(tools() / "cuobjdump", "-res-usage"))
    names = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", text, re.M)
    return Figures(*map(int, usage.groups()), Counter(names), text)


COLUMNS = ("HGMMA", "HMMA", "FFMA", "UTMALDG", "LDGSTS", "LDSM", "LDS", "LDG", "STG")


def main():
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    heads = ("kernel", "arch", "threads", "shared", "regs", "instr", *COLUMNS)
    rows = [heads]
    for title, (kernel, arch) in MAIN.items():
        f = figures(kernel, arch)
        counts = [f.count(column) for column in COLUMNS]
        rows.append(
            (title, arch, kernel.threads, kernel.shared, f.registers, sum(f.operations.values()), *counts)
        )
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(heads))]
    for row in rows:
        print(
            "  ".join(
                str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths))
            )
        )


if __name__ == "__main__":
    main()
