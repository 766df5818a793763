"""What the steps of costs.py cost, by direction and algorithm: about nanoseconds of one thread of an AMD EPYC
(Zen 4) with AVX-512.

Fitted by bench/fit_costs.py to times of the algorithms side by side over random shapes of 1 to 512 channels
and filters, images of 5 to 160 pixels, kernels of 1 to 11 taps, strides, dilations and groups, signals and
volumes, none of them in the benchmark's list; fitted are the ratios of times. Steps that do not matter are
left out.
"""

COSTS = {
    "forward": {
        "winograd8": {
            "multiply": 0.276, "panel": 0.631, "input 2": 217, "input 3": 157, "input 4": 332, "input 5": 544,
            "input 6": 421, "output 2": 98, "output 3": 16.8, "output 4": 92.8, "output 5": 182,
            "output 6": 175, "stage": 0.375, "line": 67.5, "weight": 16.2, "group": 2390, "far": 5.01,
            "call": 6800,
        },
        "winograd": {
            "multiply": 0.243, "panel": 0.884, "input 2": 147, "input 3": 197, "input 4": 177, "input 5": 355,
            "output 2": 42.2, "output 3": 74, "output 4": 88.5, "output 5": 130, "stage": 0.353, "line": 34.8,
            "weight": 7.71, "group": 1700, "far": 4.88, "call": 7500,
        },
        "depthwise": {
            "sheaf": 0.467, "turn": 1.38, "roll": 0.388, "comb": 0.984, "store": 2.05, "weight": 0.165,
            "far": 0.815, "call": 6050,
        },
        "direct": {
            "line": 0.601, "brush": 0.32, "turn": 2.74, "multiply": 0.306, "panel": 0.142, "store": 0.125,
            "put": 2.04, "stage": 3.17, "stage split": 0.0324, "weight": 0.799, "far": 1.61, "call": 6620,
        },
        "implicit_gemm": {
            "multiply": 0.297, "panel": 0.217, "pack": 1.67, "pack line": 0.383, "stage": 4.19,
            "store": 0.254, "store line": 0.617, "weight": 0.355, "far": 1.75, "call": 6750,
        },
    },
    "backward_input": {
        "winograd8": {
            "multiply": 0.35, "panel": 0.0473, "input 2": 334, "input 3": 251, "input 4": 363, "input 5": 601,
            "input 6": 396, "output 2": 106, "output 3": 164, "output 4": 176, "output 5": 246,
            "output 6": 317, "stage": 0.406, "line": 55.1, "weight": 8.66, "group": 2260, "far": 4.72,
            "call": 9550,
        },
        "winograd": {
            "multiply": 0.291, "panel": 0.291, "input 2": 168, "input 3": 206, "input 4": 162, "input 5": 295,
            "output 2": 71.4, "output 3": 109, "output 4": 157, "output 5": 245, "stage": 0.308, "line": 31.3,
            "weight": 4.4, "group": 1990, "far": 3.76, "call": 9440,
        },
        "depthwise": {
            "sheaf": 0.448, "turn": 1.72, "roll": 0.452, "comb": 0.987, "store": 1.78, "far": 1.02,
            "call": 7610,
        },
        "direct": {
            "line": 0.576, "brush": 0.303, "turn": 6.94, "multiply": 0.285, "panel": 0.22, "store": 0.655,
            "put": 4.21, "stage phase": 0.574, "stage": 3.24, "strew": 0.442, "weight": 0.666, "phase": 402,
            "far": 3.07, "call": 8890,
        },
        "implicit_gemm": {
            "multiply": 0.319, "pack": 2.15, "pack line": 0.436, "pack phase": 1.72, "stage": 0.0201,
            "store": 0.798, "store line": 2.45, "strew": 0.764, "strew line": 1.7, "weight": 0.339,
            "phase": 37.4, "far": 1.75, "call": 9440,
        },
    },
    "backward_weight": {
        "winograd8": {
            "multiply": 0.48, "input 2": 30.1, "input 4": 116, "input 5": 302, "input 6": 225,
            "output 5": 223, "output 6": 199, "stage": 0.396, "line": 87.6, "turn": 6.02, "weight": 12.2,
            "group": 8830, "call": 12900,
        },
        "winograd": {
            "multiply": 0.366, "panel": 1.03, "input 4": 9.17, "input 5": 164, "output 5": 146, "stage": 0.51,
            "line": 47.3, "turn": 6.26, "weight": 2.59, "group": 5300, "call": 13800,
        },
        "depthwise": {
            "sheaf": 0.412, "turn": 1.91, "roll": 0.34, "comb": 0.523, "store": 4.22, "fold": 0.944,
            "weight": 0.554, "far": 4.25, "call": 8680,
        },
        "direct": {
            "brush": 0.389, "turn": 0.405, "multiply": 0.128, "panel": 0.547, "stage": 4.55,
            "stage rows": 2.74, "fold": 6.91, "far": 2.15, "call": 9420,
        },
        "implicit_gemm": {
            "multiply": 0.263, "panel": 0.312, "turn": 0.697, "turn patches": 5.02, "stage": 4.76,
            "stage split": 0.0766, "update": 4.55, "group": 306, "far": 0.182, "call": 9300,
        },
    },
}
