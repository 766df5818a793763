"""Implementations side by side, each in its file: what can compute a problem, by name."""

import fastconv

from .base import Implementation, Refused
from .device import DEVICE_PEERS, OURS, PRECISIONS, FastconvCuda
from .loops import Numba
from .onnx import OnnxRuntime
from .ours import Fastconv, Reference
from .plain import NumPy, SciPy
from .pytorch import Torch, TorchChannelsLast
from .xla import Jax

__all__ = [
    "Implementation", "OURS", "Refused", "algorithms", "chosen", "chosen_device", "default", "device_names",
    "get", "names",
]  # fmt: skip

_PEERS = (Torch, TorchChannelsLast, OnnxRuntime, Jax, NumPy, SciPy, Numba, Reference)


def names():
    """All of them: fastconv by "auto", by every named algorithm, then the peers."""
    return ["fastconv", *algorithms(), *(peer.name for peer in _PEERS)]


def algorithms():
    """fastconv by every named algorithm of convolution: "fastconv:im2col", ..."""
    directions = ("conv2d", "conv2d_backward_input", "conv2d_backward_weight")
    found = dict.fromkeys(name for direction in directions for name in fastconv.algorithms(direction))
    return [f"fastconv:{name}" for name in found]


def chosen(words):
    """Names from words (names, "algorithms", "all"): fastconv first, each once. ValueError for others."""
    groups, found = {"all": names(), "algorithms": algorithms()}, ["fastconv"]
    ours = [word for word in words or default() if word not in device_names()]
    for word in ours or default():
        found += groups[word] if word in groups else [get(word).name]
    return list(dict.fromkeys(found))


def device_names():
    """All that compute on a GPU: fastconv by each precision, then the peers."""
    return [*OURS, *(peer.name for peer in DEVICE_PEERS)]


def chosen_device(words):
    """Those of the words that name implementations on a GPU, "fastconv_cuda" first; all if none does."""
    taken = [word for word in words or () if word in device_names()]
    return list(dict.fromkeys(["fastconv_cuda", *taken])) if taken else device_names()


def default():
    """Those that are measured unless others are asked for: everything that is not slow by nature."""
    return ["fastconv", "torch", "torch_channels_last", "onnxruntime", "jax"]


def get(name):
    """The implementation of that name; ValueError for an unknown one."""
    known = [*names(), *device_names()]
    if name not in known:
        raise ValueError(f"bench: implementation {name!r} is unknown, need one of {', '.join(known)}")
    if name in OURS:
        return FastconvCuda(PRECISIONS[OURS.index(name)])
    first, _, algorithm = name.partition(":")
    if first == "fastconv":
        return Fastconv(algorithm or "auto")
    return next(peer() for peer in (*_PEERS, *DEVICE_PEERS) if peer.name == name)
