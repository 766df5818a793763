"""What the tests of the benchmark share: small problems of every kind, reports made up."""

import numpy as np

from fastconv.bench import report
from fastconv.testing import bound

# One small problem of every kind that the benchmark knows.
CONVOLUTIONS = (
    "conv2d:n2c4h7w6k6r3s2_st2x1p1x0d1g2_f32_bias_relu",
    "conv2d:n1c3h5w6k2r3s3_st1p1-0x2d1g1_f32",
    "conv2d:c3h6w6k4r2s2_st3p0d2g1_f64_bias_tanh",
    "conv2d:n2c3h6w5k3r3s3_st1p1d1g3_f32",
    "conv2d:n2c3h6w5k4r3s3_st1p2d1g1_f32_reflect",
    "conv2d:n1c2h6w5k4r3s3_st2p3x2d1g1_f32_circular",
    "conv2d:n1c2h4w5k2r3s3_st1p3d1g2_f64_replicate_leaky_relu",
    "conv2d:n2c3h9w6k6r3s3_st2p1d1g3_f32_bias",
    "conv1d:n2c3w17k4s3_st1p4-0d2g1_f32_sigmoid",
    "conv3d:n1c2d4h5w4k3t2r3s1_st1p1x1x0d1g1_f32_bias",
    "conv_transpose2d:n2c4h3w4k6r4s4_st2p1d1g2_f32_bias",
    "conv_transpose1d:n1c2w5k3s3_st3p1op2d1g1_f64",
)
OTHERS = (
    "max_pool2d:n2c3h7w8r3s3_st2p1d1_f32",
    "max_pool2d:n1c2h8w8r2s2_st2p0d2_o4x4_f32",
    "avg_pool2d:n2c3h7w8r3s2_st2p1x0d1_f32",
    "avg_pool1d:c2w9s3_st2p1d1_f64_nopad",
    "avg_pool2d:n1c2h5w5r2s2_st2p0d1_f32_div3",
    "adaptive_avg_pool2d:n1c3h7w5_o2x3_f32",
    "adaptive_max_pool2d:n1c3h7w5_o2x3_f32",
    "relu:3x5_f32",
    "leaky_relu:3x5_f32",
    "elu:3x5_f32",
    "sigmoid:3x5_f64",
    "tanh:2x3x4_f32",
    "softmax:4x7_f32",
    "log_softmax:4x7_f32",
    "softmax_cross_entropy:4x7_f32",
    "sigmoid_cross_entropy:4x7_f32",
    "squared_error:4x7_f32",
    "hinge:4x7_f32",
    "batch_norm:3x4x2x5_f32",
    "local_response_norm:2x7x3x2_f64",
    "linear:3x5x4_f32",
)





class few_roundings(float):
    """Equal to what a handful of float64 operations on it may return."""

    def __eq__(self, other):
        return abs(float(self) - other) <= bound(abs(float(self)), 8, np.float64)

    __hash__ = float.__hash__


def synthetic(group="vgg", direction="forward", threads=1, allocator="warm", **times):
    """A report of one direction: label -> {implementation: best seconds}."""
    made = report.new_report()
    made["settings"].update(seconds=1, allocators=[allocator], threads=[threads])
    limit = {"dtype": "float32", "threads": threads, "isa": "avx2", "fma_gflops": 100.0, "tile_gflops": 90.0}
    made["ceilings"] = [{**limit, "copy_gbytes": 10.0, "copies": [[1e5, 20.0]], "call_seconds": 1e-6}]
    for label, by_name in times.items():
        for name, best in by_name.items():
            entry = {"title": name, "missing": None, "versions": {}, "openmp": []}
            made["implementations"].setdefault(name, entry)
            result = {"problem": f"conv2d:{label}_f32", "label": label, "group": group, "family": "conv"}
            result |= {"dtype": "float32", "direction": direction, "threads": threads, "allocator": allocator}
            result |= {"implementation": name, "flops": 2e9, "bytes": 1e6, "best": best, "median": best}
            result |= {"least_flops": 1e9, "least_by": "direct sum"}  # 10 ms at the peak
            made["results"].append({**result, "runs": 5})
    return made


def in_parts():
    """The parts of one measurement, each a report of its own."""
    warm = synthetic(
        a={"fastconv": 1.0, "torch": 4.0, "onnxruntime": 2.0},
        b={"fastconv": 1.0, "torch": 1.0, "onnxruntime": 0.5},
    )
    called = synthetic(
        allocator="as_called", a={"fastconv": 1.0, "torch": 9.0}, b={"fastconv": 1.0, "torch": 4.0}
    )
    pools = synthetic(group="pools", direction="backward", c={"fastconv": 2.0, "torch": 3.0})
    two = synthetic(threads=2, a={"fastconv": 1.0, "torch": 3.0})
    return warm, called, pools, two
