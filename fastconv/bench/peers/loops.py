"""The loop nest of the definition, compiled by Numba."""

import numpy as np

from .base import Implementation, Refused
from .plain import activated, batched_only, padded


class Numba(Implementation):
    """Three nests, one a direction, over samples and channels in parallel."""

    name, title = "numba", "Numba loop nest"
    packages = ("numba",)
    most_flops = 4e10

    def setup(self, threads):
        import numba

        numba.set_num_threads(threads)
        self.nests = _nests(numba)

    def results(self, result):
        return list(result) if isinstance(result, tuple) else [result]

    def conv(self, problem, direction, x, weight, bias, dy):
        batched_only(problem)
        if problem.ndim != 2 or problem.problem.groups > 1:
            raise Refused("images without groups only")
        if direction == "backward_input" and problem.options.get("padding_mode", "zeros") != "zeros":
            raise Refused("this gradient pads with zeros only")
        options = problem.options
        steps, nest = (*options["stride"], *options["dilation"]), self.nests[direction]
        lows = tuple(low for low, _ in options["padding"])
        shift = np.zeros(weight.shape[0], x.dtype) if bias is None else bias
        out, kernel, size = dy.shape[2:], weight.shape[2:], x.shape[2:]
        call = {
            "forward": lambda: activated(problem, nest(padded(problem, x), weight, shift, *steps, *out)),
            "backward_input": lambda: nest(dy, weight, *steps, *lows, *size),
            "backward_weight": lambda: (nest(dy, padded(problem, x), *kernel, *steps), dy.sum((0, 2, 3))),
        }[direction]
        call()  # compiles
        return call


def _nests(numba):
    compiled, prange = numba.njit(parallel=True, fastmath=True), numba.prange

    @compiled
    def forward(x, weight, bias, sh, sw, dh, dw, P, Q):
        N, (K, C, R, S) = x.shape[0], weight.shape
        y = np.empty((N, K, P, Q), x.dtype)
        for nk in prange(N * K):
            n, k = nk // K, nk % K
            y[n, k] = bias[k]
            for c in range(C):
                for r in range(R):
                    for s in range(S):
                        w = weight[k, c, r, s]
                        for p in range(P):
                            for q in range(Q):
                                y[n, k, p, q] += w * x[n, c, p * sh + r * dh, q * sw + s * dw]
        return y

    @compiled
    def backward_input(dy, weight, sh, sw, dh, dw, low_h, low_w, H, W):
        (N, K, P, Q), (_, C, R, S) = dy.shape, weight.shape
        dx = np.zeros((N, C, H, W), dy.dtype)
        for nc in prange(N * C):
            n, c = nc // C, nc % C
            for k in range(K):
                for r in range(R):
                    for s in range(S):
                        w = weight[k, c, r, s]
                        for p in range(P):
                            h = p * sh + r * dh - low_h
                            if 0 <= h < H:
                                for q in range(Q):
                                    v = q * sw + s * dw - low_w
                                    if 0 <= v < W:
                                        dx[n, c, h, v] += w * dy[n, k, p, q]
        return dx

    @compiled
    def backward_weight(dy, x, R, S, sh, sw, dh, dw):
        (N, K, P, Q), C = dy.shape, x.shape[1]
        dweight = np.empty((K, C, R, S), dy.dtype)
        for kc in prange(K * C):
            k, c = kc // C, kc % C
            for r in range(R):
                for s in range(S):
                    total = dy.dtype.type(0)
                    for n in range(N):
                        for p in range(P):
                            for q in range(Q):
                                total += dy[n, k, p, q] * x[n, c, p * sh + r * dh, q * sw + s * dw]
                    dweight[k, c, r, s] = total
        return dweight

    return {"forward": forward, "backward_input": backward_input, "backward_weight": backward_weight}
