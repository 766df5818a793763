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
            "multiply": 0.21, "panel": 0.751, "input 2": 209, "input 3": 168, "input 4": 348, "input 5": 592,
            "input 6": 428, "output 2": 111, "output 3": 64.9, "output 4": 120, "output 5": 200,
            "output 6": 209, "stage": 0.349, "line": 57.3, "weight": 14.9, "group": 2260, "far": 3.56,
            "call": 7080,
        },
        "winograd": {
            "multiply": 0.209, "panel": 0.843, "input 2": 147, "input 3": 201, "input 4": 193, "input 5": 322,
            "output 2": 57, "output 3": 83.9, "output 4": 102, "output 5": 166, "stage": 0.309, "line": 30.4,
            "weight": 7.05, "group": 1960, "far": 3.2, "call": 7600,
        },
        "winograd1d": {
            "input down": 13, "input across": 11.2, "output down": 2.11, "output across": 3.44,
            "multiply": 0.162, "batch": 0.754, "put": 2.83, "stage": 1.6, "stage split": 0.144,
            "weight": 0.63, "group": 178, "far": 3.24, "call": 7010,
        },
        "depthwise": {
            "sheaf": 0.435, "turn": 1.34, "roll": 0.378, "comb": 0.957, "store": 1.95, "plane": 6.8,
            "weight": 0.241, "far": 0.275, "call": 6380,
        },
        "direct": {
            "line": 0.561, "brush": 0.302, "turn": 2.68, "multiply": 0.296, "panel": 0.0839, "store": 0.427,
            "put": 2, "stage": 3.11, "stage split": 0.0224, "weight": 0.76, "far": 0.896, "call": 7030,
        },
        "implicit_gemm": {
            "multiply": 0.281, "panel": 0.209, "pack": 1.53, "pack line": 0.366, "stage": 4.19,
            "store": 0.678, "store line": 0.417, "weight": 0.335, "far": 0.968, "call": 7380,
        },
    },
    "backward_input": {
        "winograd8": {
            "multiply": 0.246, "panel": 0.634, "input 2": 297, "input 3": 272, "input 4": 330, "input 5": 591,
            "input 6": 355, "output 2": 118, "output 3": 163, "output 4": 193, "output 5": 275,
            "output 6": 319, "stage": 0.349, "line": 43.4, "weight": 9.31, "group": 2250, "far": 3.21,
            "call": 10900,
        },
        "winograd": {
            "multiply": 0.285, "panel": 0.118, "input 2": 174, "input 3": 218, "input 4": 173, "input 5": 323,
            "output 2": 82.2, "output 3": 124, "output 4": 166, "output 5": 269, "stage": 0.235, "line": 24.6,
            "weight": 4.74, "group": 2050, "far": 2.44, "call": 11000,
        },
        "winograd1d": {
            "input down": 18.6, "input across": 14, "output down": 1.67, "output across": 4.27,
            "multiply": 0.113, "batch": 0.984, "put": 4.99, "strew": 0.165, "stage": 0.42, "weight": 0.429,
            "group": 90.8, "phase": 367, "far": 5.54, "call": 9760,
        },
        "depthwise": {
            "sheaf": 0.418, "turn": 1.45, "roll": 0.392, "comb": 0.865, "store": 2.23, "far": 0.249,
            "call": 9140,
        },
        "direct": {
            "line": 0.524, "brush": 0.294, "turn": 5.56, "multiply": 0.293, "panel": 0.0993, "store": 0.757,
            "put": 3.03, "stage phase": 0.785, "stage": 2.82, "strew": 0.376, "weight": 0.684, "phase": 211,
            "far": 2.57, "call": 10500,
        },
        "implicit_gemm": {
            "multiply": 0.311, "pack": 1.95, "pack line": 0.446, "pack phase": 1.39, "stage": 0.068,
            "store": 0.962, "store line": 1.66, "strew": 0.59, "strew line": 2.17, "weight": 0.264,
            "far": 1.29, "call": 11100,
        },
    },
    "backward_weight": {
        "winograd8": {
            "multiply": 0.442, "input 4": 164, "input 5": 293, "input 6": 233, "output 3": 12.7,
            "output 5": 252, "output 6": 174, "stage": 0.483, "line": 79.4, "turn": 5.75, "weight": 11.1,
            "group": 8420, "call": 13600,
        },
        "winograd": {
            "multiply": 0.422, "panel": 0.0753, "input 4": 17.6, "input 5": 127, "output 5": 119,
            "stage": 0.543, "line": 40.7, "turn": 6.87, "weight": 2.17, "group": 5100, "call": 14900,
        },
        "winograd1d": {
            "multiply": 0.231, "panel": 0.356, "update": 2.4, "output": 1.64, "input": 2.21,
            "output across": 1.43, "input across": 2.07, "stage": 1.72, "stage split": 0.165, "far": 2.17,
            "call": 12900,
        },
        "depthwise": {
            "sheaf": 0.404, "turn": 1.75, "roll": 0.324, "comb": 0.467, "store": 3.89, "fold": 2.26,
            "weight": 0.485, "far": 5.83, "call": 8950,
        },
        "direct": {
            "brush": 0.324, "turn": 4.21, "multiply": 0.196, "panel": 0.459, "update": 1.47, "stage": 2.75,
            "stage split": 0.132, "stage rows": 1.58, "fold": 17.2, "far": 2.11, "call": 9660,
        },
        "implicit_gemm": {
            "multiply": 0.263, "panel": 0.304, "turn": 0.424, "turn patches": 4.98, "stage": 4.75,
            "stage split": 0.0357, "update": 4.52, "group": 347, "far": 1.5, "call": 9760,
        },
    },
}
