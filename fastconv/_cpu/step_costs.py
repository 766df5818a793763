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
            "multiply": 0.238, "panel": 0.943, "input 2": 183, "input 3": 64.7, "input 4": 240,
            "input 5": 293, "input 6": 296, "output 2": 130, "output 3": 80.3, "output 4": 138,
            "output 5": 214, "output 6": 213, "stage": 0.367, "line": 41.2, "weight": 13.6, "group": 2730,
            "far written": 5.94, "call": 8140,
        },
        "winograd": {
            "multiply": 0.269, "panel": 0.635, "input 2": 121, "input 3": 118, "input 4": 130, "input 5": 178,
            "output 2": 55.4, "output 3": 90.7, "output 4": 99.2, "output 5": 139, "stage": 0.34,
            "line": 20.3, "weight": 7.17, "group": 2520, "far": 0.801, "far written": 4.55, "call": 8300,
        },
        "winograd1d": {
            "input down": 17.4, "input across": 10.8, "output down": 1.76, "output across": 4.14,
            "multiply": 0.163, "batch": 0.925, "put": 3.41, "stage split": 0.144, "weight": 0.621,
            "group": 147, "far": 3.53, "far written": 3.85, "call": 7910,
        },
        "depthwise": {
            "sheaf": 0.432, "turn": 1.53, "roll": 0.416, "comb": 1.05, "store": 1.49, "plane": 10.3,
            "weight": 0.881, "far": 0.787, "far written": 1.29, "call": 7170,
        },
        "direct": {
            "line": 0.596, "brush": 0.325, "turn": 3.6, "multiply": 0.314, "panel": 0.0646, "store": 0.403,
            "put": 2.17, "stage": 2.43, "stage split": 0.131, "weight": 0.73, "group": 56.1, "far": 1.42,
            "far written": 1.71, "call": 7670,
        },
        "implicit_gemm": {
            "multiply": 0.211, "panel": 1.02, "pack": 0.992, "pack line": 0.241, "stage": 5.11,
            "store": 0.493, "store line": 0.615, "weight": 0.104, "group": 159, "far": 1.29,
            "far written": 3.05, "call": 8080,
        },
    },
    "backward_input": {
        "winograd8": {
            "multiply": 0.218, "panel": 0.997, "input 2": 192, "input 3": 116, "input 4": 239, "input 5": 284,
            "input 6": 276, "output 2": 148, "output 3": 159, "output 4": 197, "output 5": 270,
            "output 6": 332, "stage": 0.292, "line": 34.5, "weight": 11, "group": 3140, "far written": 5.01,
            "call": 12200,
        },
        "winograd": {
            "multiply": 0.22, "panel": 0.72, "input 2": 131, "input 3": 132, "input 4": 122, "input 5": 119,
            "output 2": 86.7, "output 3": 123, "output 4": 161, "output 5": 205, "stage": 0.187, "line": 16.8,
            "weight": 6.43, "group": 2600, "far": 1.46, "far written": 2.8, "call": 12700,
        },
        "winograd1d": {
            "input down": 15.8, "input across": 5.13, "output down": 2.61, "output across": 5.52,
            "multiply": 0.0939, "batch": 1.11, "put": 6.26, "stage": 0.413, "weight": 0.531, "group": 36,
            "phase": 157, "far": 3.72, "far written": 5.58, "call": 12200,
        },
        "depthwise": {
            "sheaf": 0.508, "turn": 1.18, "roll": 0.47, "comb": 0.916, "store": 1.44, "far": 2.95,
            "far written": 0.0232, "call": 10400,
        },
        "direct": {
            "line": 0.588, "brush": 0.301, "turn": 9.3, "multiply": 0.312, "panel": 0.0558, "store": 1.97,
            "put": 2.93, "stage phase": 1.4, "stage": 1.79, "strew": 0.108, "strew 2": 0.179, "weight": 0.903,
            "phase": 328, "group": 32.5, "far": 3.67, "far written": 2.56, "call": 11900,
        },
        "implicit_gemm": {
            "multiply": 0.191, "panel": 0.983, "pack": 1.51, "pack line": 0.579, "pack phase": 1.1,
            "store": 2.27, "store line": 1.92, "strew": 0.166, "strew line": 0.969, "weight": 0.471,
            "phase": 110, "group": 129, "far": 2.31, "far written": 2.35, "call": 12700,
        },
    },
    "backward_weight": {
        "winograd8": {
            "multiply": 0.0751, "panel": 2.77, "input 4": 45.5, "input 5": 57.2, "input 6": 144,
            "output 3": 45, "output 4": 23.5, "output 5": 105, "output 6": 127, "stage": 0.301, "line": 6.9,
            "turn": 1.36, "weight": 15.1, "far": 2.54, "call": 9300,
        },
        "winograd": {
            "multiply": 0.12, "panel": 2.39, "input 4": 44.1, "input 5": 27.6, "output 4": 28.6,
            "output 5": 57.2, "stage": 0.329, "line": 2.9, "turn": 1.77, "weight": 6.79, "group": 1200,
            "far": 2.44, "call": 8710,
        },
        "winograd1d": {
            "multiply": 0.202, "panel": 0.503, "update": 0.56, "output": 1.96, "input": 1.42,
            "output across": 2.43, "input across": 2.75, "stage": 3.62, "stage split": 0.0468,
            "weight": 0.981, "far": 1.91, "call": 11800,
        },
        "depthwise": {
            "sheaf": 0.47, "turn": 1.23, "roll": 0.192, "comb": 0.226, "store": 2, "slope row": 0.581,
            "slope": 0.22, "fold": 0.478, "weight": 0.494, "far": 5.02, "call": 8050,
        },
        "direct": {
            "brush": 0.291, "turn": 7.25, "multiply": 0.189, "panel": 0.4, "update": 1.03, "stage": 4.25,
            "stage rows": 1.97, "fold": 23.9, "far": 1.93, "call": 8290,
        },
        "implicit_gemm": {
            "multiply": 0.255, "panel": 0.288, "line": 0.389, "turn": 0.634, "turn patches": 4.69,
            "stage": 4.82, "stage split": 0.0324, "update": 12.2, "group": 216, "far": 0.546, "call": 8670,
        },
    },
}
