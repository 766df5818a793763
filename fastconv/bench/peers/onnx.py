"""ONNX Runtime: forward passes, the weights constants of the model, as exported networks have them.

The session may therefore rearrange the weights once, ahead of the timed calls. Its threads do not spin
between calls, since that would slow down whoever is measured next.
"""

import struct

import numpy as np

from ..problems import RESPONSE_NORM
from .base import Implementation, Refused

OPSET, IR_VERSION = 17, 8
NODES = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {"alpha": 1.0}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "log_softmax": ("LogSoftmax", {"axis": -1}),
}


class OnnxRuntime(Implementation):
    name, title = "onnxruntime", "ONNX Runtime"
    packages = ("onnxruntime",)
    capped = False

    def setup(self, threads):
        import onnxruntime

        self.library = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        self.options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def prepare(self, problem, direction, arrays):
        if direction != "forward":
            raise Refused("forward only")
        if problem.dtype != "float32":
            raise Refused("float32 only")
        return super().prepare(problem, direction, arrays)

    def results(self, result):
        return result

    def _session(self, x, *nodes, **constants):
        """The call of a chain of nodes, each (operator, attributes, names of its constants)."""
        model = _model(x, nodes, constants)
        session = self.library.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])
        inputs = {"x": x}
        return lambda: session.run(None, inputs)

    def conv(self, problem, direction, x, weight, bias, dy):
        options = problem.options
        if not problem.problem.batched:
            raise Refused("needs the batch axis")
        if options.get("padding_mode", "zeros") != "zeros":
            raise Refused("pads with zeros only")
        attributes = {
            "kernel_shape": weight.shape[2:],
            "strides": options["stride"],
            "dilations": options["dilation"],
            "pads": _pads(options["padding"]),
            "group": options["groups"],
        }
        if problem.transposed:
            attributes["output_padding"] = options.get("output_padding", (0,) * problem.ndim)
        constants = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        nodes = [("ConvTranspose" if problem.transposed else "Conv", attributes, tuple(constants))]
        if problem.problem.activation:
            nodes.append((*NODES[problem.problem.activation], ()))
        return self._session(x, *nodes, **constants)

    def pool(self, problem, direction, x, dy):
        options = problem.options
        if not problem.problem.batched:
            raise Refused("needs the batch axis")
        if problem.problem.adaptive:
            if problem.op != "adaptive_avg_pool2d" or set(options["output_size"]) != {1}:
                raise Refused("no adaptive pools but the global average")
            return self._session(x, ("GlobalAveragePool", {}, ()))
        attributes = {
            "kernel_shape": options["kernel_size"],
            "strides": options["stride"],
            "pads": _pads(options["padding"]),
            "ceil_mode": int(options["ceil_mode"]),
        }
        if "max" in problem.op:
            return self._session(x, ("MaxPool", {**attributes, "dilations": options["dilation"]}, ()))
        if set(options["dilation"]) != {1} or options["divisor_override"]:
            raise Refused("averages without dilation and divisor only")
        attributes["count_include_pad"] = int(options["count_include_pad"])
        return self._session(x, ("AveragePool", attributes, ()))

    def activation(self, problem, direction, x, dy):
        return self._session(x, (*NODES[problem.op], ()))

    def linear(self, problem, direction, x, weight, bias, dy):
        return self._session(x, ("Gemm", {"transB": 1}, ("weight", "bias")), weight=weight, bias=bias)

    def norm(self, problem, direction, x, dy, weight=None, bias=None):
        if problem.op != "local_response_norm":
            return None  # training statistics are not among its operators
        norm = dict(RESPONSE_NORM)
        return self._session(x, ("LRN", {**norm, "bias": norm.pop("k")}, ()))


def _pads(padding):
    """ONNX's order: all low sides, then all high sides."""
    return tuple(pair[side] for side in (0, 1) for pair in padding)


# -- the file format: protocol buffers, of which one node needs little ---------------------------------------


def _varint(value):
    value &= (1 << 64) - 1  # negative numbers are written in two's complement
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field, value):
    return _varint(field << 3) + _varint(value)


def _bytes(field, *parts):
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _attribute(name, value):
    if isinstance(value, float):
        content = _varint(2 << 3 | 5) + struct.pack("<f", value) + _int(20, 1)
    elif isinstance(value, int):
        content = _int(3, value) + _int(20, 2)
    else:
        content = b"".join(_int(8, int(item)) for item in value) + _int(20, 7)
    return _bytes(5, _bytes(1, name), content)


def _tensor(name, array):
    dims = b"".join(_int(1, size) for size in array.shape)
    return _bytes(5, dims, _int(2, 1), _bytes(8, name), _bytes(9, np.ascontiguousarray(array).tobytes()))


def _value(field, name, shape):
    """A graph input or output; an output may leave its shape open."""
    dims = b"" if shape is None else _bytes(2, *(_bytes(1, _int(1, size)) for size in shape))
    return _bytes(field, _bytes(1, name), _bytes(2, _bytes(1, _int(1, 1), dims)))


def _model(x, nodes, constants):
    graph, value = [], "x"
    for number, (operator, attributes, names) in enumerate(nodes):
        inputs = b"".join(_bytes(1, name) for name in (value, *names))
        value = f"y{number}"
        settings = b"".join(_attribute(name, setting) for name, setting in attributes.items())
        graph.append(_bytes(1, inputs, _bytes(2, value), _bytes(4, operator), settings))
    graph.append(_bytes(2, "problem"))
    graph += [_tensor(name, array) for name, array in constants.items()]
    graph += [_value(11, "x", x.shape), _value(12, value, None)]
    return b"".join((_int(1, IR_VERSION), _bytes(7, *graph), _bytes(8, _bytes(1, ""), _int(2, OPSET))))
