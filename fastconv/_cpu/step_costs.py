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
            "multiply": 0.275, "panel": 0.63, "input 2": 214, "input 3": 148, "input 4": 310, "input 5": 544,
            "input 6": 417, "output 2": 98.6, "output 3": 22.3, "output 4": 95.6, "output 5": 180,
            "output 6": 180, "stage": 0.377, "line": 67.5, "weight": 15.6, "group": 2310, "far": 4.93,
            "call": 6980,
        },
        "winograd": {
            "multiply": 0.273, "panel": 0.676, "input 2": 150, "input 3": 202, "input 4": 180, "input 5": 349,
            "output 2": 44, "output 3": 74.4, "output 4": 88.6, "output 5": 135, "stage": 0.355, "line": 33.9,
            "weight": 7.35, "group": 1690, "far": 4.8, "call": 7650,
        },
        "depthwise": {
            "sheaf": 0.472, "turn": 1.38, "roll": 0.389, "comb": 0.987, "store": 2.02, "weight": 0.137,
            "far": 0.811, "call": 6090,
        },
        "direct": {
            "line": 0.602, "brush": 0.318, "turn": 3.57, "multiply": 0.31, "panel": 0.13, "store": 0.11,
            "put": 2.03, "stage": 3.19, "stage split": 0.0313, "weight": 0.751, "far": 1.6, "call": 6670,
        },
        "implicit_gemm": {
            "multiply": 0.301, "panel": 0.204, "pack": 1.67, "pack line": 0.379, "stage": 4.22, "store": 0.24,
            "store line": 0.6, "weight": 0.311, "far": 1.74, "call": 6810,
        },
    },
    "backward_input": {
        "winograd8": {
            "multiply": 0.23, "panel": 0.917, "input 2": 310, "input 3": 87.6, "input 4": 341, "input 5": 561,
            "input 6": 389, "output 2": 108, "output 3": 165, "output 4": 169, "output 5": 247,
            "output 6": 316, "stage": 0.328, "line": 55.2, "weight": 7.67, "group": 2260, "far": 4.97,
            "call": 9200,
        },
        "winograd": {
            "multiply": 0.198, "panel": 0.953, "input 2": 156, "input 3": 190, "input 4": 156, "input 5": 276,
            "output 2": 71.2, "output 3": 108, "output 4": 155, "output 5": 248, "stage": 0.222, "line": 32.6,
            "weight": 3.7, "group": 1980, "far": 4.06, "call": 9150,
        },
        "depthwise": {
            "sheaf": 0.458, "turn": 1.78, "roll": 0.475, "comb": 0.954, "store": 1.82, "far": 1.16,
            "call": 7490,
        },
        "direct": {
            "line": 0.586, "brush": 0.296, "turn": 7.95, "multiply": 0.277, "panel": 0.254, "store": 0.707,
            "put": 4.27, "stage": 3.35, "strew": 0.436, "weight": 0.642, "phase": 409, "far": 3.3,
            "call": 8720,
        },
        "implicit_gemm": {
            "multiply": 0.314, "pack": 2.24, "pack line": 0.545, "stage": 0.495, "store": 0.831,
            "store line": 2.53, "strew": 0.766, "strew line": 1.74, "weight": 0.264, "phase": 132,
            "far": 1.91, "call": 9120,
        },
    },
    "backward_weight": {
        "winograd8": {
            "multiply": 0.501, "input 2": 19.3, "input 4": 228, "input 5": 276, "input 6": 248,
            "output 3": 91.5, "output 5": 381, "output 6": 229, "stage": 0.373, "line": 87.8, "turn": 6,
            "weight": 8.39, "group": 11800, "call": 9310,
        },
        "winograd": {
            "multiply": 0.282, "panel": 1.88, "input 2": 19.4, "input 4": 28.9, "input 5": 179,
            "output 3": 46.4, "output 4": 6.28, "output 5": 124, "stage": 0.496, "line": 45.1, "turn": 5.92,
            "group": 5810, "call": 13500,
        },
        "depthwise": {
            "sheaf": 0.412, "turn": 1.78, "roll": 0.346, "comb": 0.497, "store": 4.36, "fold": 0.801,
            "weight": 0.444, "far": 4.62, "call": 8630,
        },
        "direct": {
            "brush": 0.394, "turn": 0.342, "multiply": 0.155, "panel": 0.515, "stage": 4.66,
            "stage rows": 2.81, "fold": 6.25, "far": 2.55, "call": 9380,
        },
        "implicit_gemm": {
            "multiply": 0.26, "panel": 0.3, "turn": 0.946, "turn patches": 5.17, "stage": 4.89,
            "stage split": 0.0657, "update": 5.97, "group": 234, "far": 0.679, "call": 9140,
        },
    },
}
