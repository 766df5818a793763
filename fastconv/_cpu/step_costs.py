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
            "multiply": 0.183, "panel": 1.69, "input 2": 126, "input 3": 108, "input 4": 160, "input 5": 147,
            "input 6": 140, "output 2": 151, "output 3": 164, "output 4": 189, "output 5": 260,
            "output 6": 265, "stage": 0.51, "line": 11.8, "weight": 14.9, "group": 2530, "far": 2.62,
            "far written": 1.63, "call": 8700,
        },
        "winograd": {
            "multiply": 0.206, "panel": 1.38, "input 2": 84.5, "input 3": 82.1, "input 4": 72.9,
            "input 5": 83.8, "output 2": 76.5, "output 3": 106, "output 4": 114, "output 5": 146,
            "stage": 0.475, "line": 8.35, "weight": 8.31, "group": 2340, "far": 3.68, "far written": 1.44,
            "call": 8980,
        },
        "winograd1d": {
            "input down": 14.5, "input across": 10.5, "output down": 1.98, "output across": 4.45,
            "multiply": 0.129, "batch": 1.05, "put": 2.94, "stage split": 0.0368, "weight": 0.624,
            "group": 137, "far": 6.56, "far written": 4.19, "call": 8490,
        },
        "depthwise": {
            "sheaf": 0.42, "turn": 1.54, "roll": 0.445, "comb": 0.846, "store": 1.01, "plane": 11,
            "weight": 1.02, "far": 0.224, "far written": 2.09, "call": 7300,
        },
        "direct": {
            "line": 0.633, "brush": 0.342, "turn": 2.3, "multiply": 0.312, "panel": 0.124, "store": 0.342,
            "put": 1.69, "stage": 1.78, "stage split": 0.0208, "weight": 0.878, "group": 55.4, "far": 1.72,
            "far written": 1.41, "call": 8050,
        },
        "implicit_gemm": {
            "multiply": 0.168, "panel": 1.48, "pack": 0.684, "pack line": 0.362, "stage": 2.82,
            "store": 0.538, "store line": 0.295, "weight": 0.163, "group": 123, "far": 2.25,
            "far written": 2.77, "call": 8730,
        },
    },
    "backward_input": {
        "winograd8": {
            "multiply": 0.212, "panel": 1.16, "input 2": 167, "input 3": 172, "input 4": 225, "input 5": 228,
            "input 6": 212, "output 2": 166, "output 3": 189, "output 4": 223, "output 5": 282,
            "output 6": 339, "stage": 0.256, "line": 14.2, "weight": 10.9, "group": 3150, "far": 0.306,
            "far written": 3.32, "call": 11000,
        },
        "winograd": {
            "multiply": 0.188, "panel": 1.14, "input 2": 101, "input 3": 115, "input 4": 101, "input 5": 77.4,
            "output 2": 105, "output 3": 137, "output 4": 155, "output 5": 200, "stage": 0.167, "line": 8.82,
            "weight": 5.39, "group": 2740, "far": 0.508, "far written": 3.52, "call": 11800,
        },
        "winograd1d": {
            "input down": 15.6, "input across": 5.1, "output down": 2.48, "output across": 5.21,
            "multiply": 0.0942, "batch": 1.14, "put": 5.69, "stage": 0.588, "weight": 0.42, "group": 26.7,
            "far": 4.04, "far written": 6.49, "call": 12000,
        },
        "depthwise": {
            "sheaf": 0.586, "turn": 1.09, "roll": 0.461, "comb": 0.785, "store": 1.7, "far": 2.69,
            "call": 10400,
        },
        "direct": {
            "line": 0.615, "brush": 0.315, "turn": 7.48, "multiply": 0.316, "panel": 0.0608, "store": 1.96,
            "put": 2.35, "stage phase": 1.4, "stage": 1.57, "strew": 0.073, "strew 2": 0.157, "weight": 0.799,
            "phase": 269, "group": 36.5, "far": 1.62, "far written": 3.83, "call": 11500,
        },
        "implicit_gemm": {
            "multiply": 0.206, "panel": 0.907, "pack": 1.47, "pack line": 0.781, "pack phase": 1.06,
            "store": 2.26, "store line": 1.42, "strew": 0.151, "strew line": 0.807, "weight": 0.379,
            "group": 143, "far": 2.04, "far written": 2.66, "call": 12200,
        },
    },
    "backward_weight": {
        "winograd8": {
            "multiply": 0.177, "panel": 2.01, "input 4": 52.9, "input 5": 72.3, "input 6": 162,
            "output 3": 67.6, "output 4": 49.9, "output 5": 117, "output 6": 147, "stage": 0.331,
            "line": 9.01, "turn": 1.36, "weight": 14.2, "group": 357, "far": 2.65, "call": 8530,
        },
        "winograd": {
            "multiply": 0.193, "panel": 1.76, "input 4": 42.7, "input 5": 45.1, "output 4": 21.3,
            "output 5": 61.8, "stage": 0.357, "line": 5.05, "turn": 1.8, "weight": 7.85, "group": 1460,
            "far": 3.41, "call": 8330,
        },
        "winograd1d": {
            "multiply": 0.235, "panel": 0.356, "update": 0.858, "output": 1.85, "input": 1.49,
            "output across": 2.17, "input across": 3.05, "stage": 3.12, "stage split": 0.058, "weight": 0.728,
            "far": 2.18, "call": 11600,
        },
        "depthwise": {
            "sheaf": 0.44, "turn": 1.36, "roll": 0.179, "comb": 0.189, "store": 1.94, "slope row": 0.573,
            "slope": 0.241, "weight": 1.28, "far": 5.23, "call": 7940,
        },
        "direct": {
            "brush": 0.301, "turn": 5.17, "multiply": 0.213, "panel": 0.328, "update": 0.939, "stage": 3.66,
            "stage rows": 1.84, "fold": 20.6, "far": 2.13, "call": 8230,
        },
        "implicit_gemm": {
            "multiply": 0.26, "panel": 0.268, "turn": 0.426, "turn patches": 4.27, "pack line": 0.286,
            "stage": 4.4, "update": 9.51, "group": 239, "far": 1.25, "call": 8650,
        },
    },
}
