"""Errors of the contract: kind, and operation, value, rule in the message. Nothing else leaves it."""

import inspect
import itertools
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastconv as fc
from fastconv import _backends


def f4(*shape):
    return np.ones(shape, np.float32)


def f8(*shape):
    return np.ones(shape, np.float64)


def i8(*shape):
    return np.zeros(shape, np.int64)


X, W, DY = f4(2, 4, 5, 6), f4(8, 4, 3, 3), f4(2, 8, 3, 4)
WT = f4(4, 8, 3, 3)  # of a transposed convolution

# (call, what the message says), a row for each rule; calls are evaluated with fastconv's names and these.
# fmt: off
TYPE_ERRORS = [
    # arrays
    ("conv2d([[1.0]], W)", r"conv2d: x must be a NumPy array, got list.*np\.asarray\(x\)"),
    ("conv2d(X, W.tolist())", r"conv2d: weight must be a NumPy array, got list"),
    ("conv2d(X, W, [0.0] * 8)", r"conv2d: bias must be a NumPy array, got list"),
    ("conv2d(None, W)", r"conv2d: x must be a NumPy array, got NoneType"),
    ("conv2d(np.ma.array(X), W)", r"conv2d: x is a masked array.*np\.asarray\(x\.filled"),
    ("relu(np.ma.array(X))", r"relu: x is a masked array"),
    ("relu([1.0])", r"relu: x must be a NumPy array.*np\.asarray"),
    ("relu(1.0)", r"relu: x must be a NumPy array, got float"),
    ("conv2d(np.float32(1), W)", r"conv2d: x must be a NumPy array, got float32"),
    ("linear(X, W.tolist())", r"linear: weight must be a NumPy array"),
    ("max_pool2d(X.tolist(), 2)", r"max_pool2d: x must be a NumPy array"),
    ("nll(f4(2, 3), [0, 1])", r"nll: target must be a NumPy array, got list"),
    ("nll(f4(3), 1)", r"nll: target must be a NumPy array, got int"),
    ("conv2d(X, W, out=[])", r"conv2d: out must be a NumPy array"),
    # dtypes
    ("conv2d(X.astype(int), W)", r"conv2d: x has dtype int64, accepted: float32 or float64"),
    ('conv2d(X, W.astype("f2"))', r"conv2d: weight has dtype float16, accepted: float32"),
    ("conv2d(X, W, np.zeros(8, complex))", r"conv2d: bias has dtype complex128"),
    ('conv2d(X, W.astype("f8"))', r"conv2d: weight has dtype float64, x has float32.*nothing is"),
    ("conv2d(X, W, f8(8))", r"conv2d: bias has dtype float64, x has float32"),
    ("conv2d(X.astype(object), W)", r"conv2d: x has dtype object"),
    ('conv2d(X.astype("S3"), W)', r"conv2d: x has dtype"),
    ("conv2d(X.astype(np.longdouble), W)", r"conv2d: x has dtype"),
    ("conv2d(X > 0, W)", r"conv2d: x has dtype bool"),
    ("conv2d_backward(f8(2, 8, 3, 4), X, W)", r"conv2d_backward: dy has dtype float64, x has"),
    ("conv_transpose2d(X, f8(4, 8, 3, 3))", r"conv_transpose2d: weight has dtype float64"),
    ('im2col(X.astype("i4"), 2)', r"im2col: x has dtype int32, accepted"),
    ('col2im(X.astype("i4"), (2, 2), 2)', r"col2im: cols has dtype int32, accepted"),
    ('max_pool2d(X.astype("i4"), 2)', r"max_pool2d: x has dtype int32"),
    ('avg_pool2d_backward(X.astype("i4"), X.shape, 2)', r"avg_pool2d_backward: dy has dtype int32"),
    ('tanh(X.astype("i4"))', r"tanh: x has dtype int32, accepted: float32 or float64"),
    ("tanh(np.int32(3))", r"tanh: x has dtype int32"),
    ('tanh(np.array(["2020"], "M8[Y]"))', r"tanh: x has dtype datetime64"),
    ('tanh(np.zeros(2, [("a", "f4")]))', r"tanh: x has dtype"),
    ("relu_backward(f4(2), f8(2))", r"relu_backward: dy has dtype float32, y has float64"),
    ("linear(f4(2, 3), f8(4, 3))", r"linear: weight has dtype float64, x has float32"),
    ("batch_norm(f4(2, 3), f8(3), None, f4(3), f4(3))", r"batch_norm: weight has dtype float64"),
    ("batch_norm(f4(2, 3), None, None, f8(3), f4(3))", r"running_mean has dtype float64"),
    ("squared_error(f4(2), f8(2))", r"squared_error: target has dtype float64, prediction has"),
    ("sigmoid_cross_entropy(f4(2), f4(2), weight=f8(2))", r"weight has dtype float64"),
    ("nll(f4(2, 3), np.zeros(2, bool))", r"nll: target has dtype bool, accepted: an integer"),
    ("nll(f4(2, 3), f4(2))", r"nll: target has dtype float32, accepted: an integer dtype"),
    ('hinge(f4(2, 3), np.zeros(2, "U1"))', r"hinge: target has dtype <U1"),
    ("softmax_cross_entropy(f4(2, 3), f8(2, 3))", r"target has dtype float64, logits has float32"),
    ("softmax_cross_entropy(f4(2, 3), np.zeros((2, 3), bool))", r"target has dtype bool"),
    ('max_pool2d_backward(DY, DY.astype("i4"), DY.shape)', r"indices has dtype int32, accepted: int64"),
    ("maxout_backward(f4(2, 3), f4(2, 3), 2)", r"maxout_backward: indices has dtype float32"),
    ("dropout_backward(f4(2), i8(2), 0.5)", r"dropout_backward: mask has dtype int64, accepted: bool"),
    ("conv2d(X, W, out=f8(2, 8, 3, 4))", r"conv2d: out has dtype float64, need float32"),
    ('conv2d(X, W, out=np.ones((2, 8, 3, 4), ">f4"))', r"conv2d: out has dtype >f4, need float32"),
    # options
    ("conv2d(X, W, stride=1.0)", r"conv2d: stride must be an int or a sequence of ints, got 1.0 \(float"),
    ("conv2d(X, W, stride=True)", r"conv2d: stride must be an int .*, got True \(bool\)"),
    ("conv2d(X, W, stride=np.True_)", r"conv2d: stride must be an int"),
    ('conv2d(X, W, stride="2")', r"conv2d: stride must be an int or 2 ints, got '2'"),
    ("conv2d(X, W, stride=None)", r"conv2d: stride must be an int .*, got None"),
    ("conv2d(X, W, stride={1: 2})", r"conv2d: stride must be an int"),
    ("conv2d(X, W, stride=((1, 1), (1, 1)))", r"conv2d: stride must be an int or 2 ints"),
    ("conv2d(X, W, stride=[[[1]]])", r"conv2d: stride must be ints"),
    ("conv2d(X, W, padding=1.5)", r"conv2d: padding must be an int"),
    ("conv2d(X, W, padding=None)", r"conv2d: padding must be an int"),
    ('conv_transpose2d(X, WT, padding="same")', r"conv_transpose2d: padding='same', need an int"),
    ('max_pool2d(X, 2, padding="same")', r"max_pool2d: padding='same', need an int"),
    ('im2col(X, 2, padding="same")', r"im2col: padding='same', need an int"),
    ("conv2d(X, W, padding_mode=None)", r"conv2d: padding_mode must be one of"),
    ("conv2d(X, W, padding_mode=[])", r"conv2d: padding_mode must be one of"),
    ("conv2d(X, W, activation=relu)", r"conv2d: activation must be one of None, 'relu'"),
    ("conv2d(X, W, groups=(1, 1))", r"conv2d: groups must be an int, got \(1, 1\)"),
    ("conv2d(X, W, groups=1.0)", r"conv2d: groups must be an int"),
    ("conv2d(X, W, algorithm=None)", r"conv2d: algorithm must be a string, got None"),
    ("conv2d(X, W, algorithm=X)", r"conv2d: algorithm must be a string"),
    ("conv2d_backward(DY, X, W, output_mask=(True, True))", r"output_mask must be three bools"),
    ("conv2d_backward(DY, X, W, output_mask=(1, 1, 1))", r"output_mask must be True or False, got 1"),
    ("conv2d_backward(DY, X, W, output_mask=None)", r"output_mask must be three bools"),
    ('im2col(X, "ab")', r"im2col: kernel_size must be an int or 2 ints"),
    ('col2im(f4(2, 8, 9), "44", 2)', r"col2im: output_size must be an int or 2 ints, got '44'"),
    ("max_pool2d(X, 2.0)", r"max_pool2d: kernel_size must be an int"),
    ("max_pool2d(X, 2, ceil_mode=1)", r"max_pool2d: ceil_mode must be True or False, got 1 \(int\)"),
    ('max_pool2d(X, 2, return_indices="no")', r"max_pool2d: return_indices must be True or False"),
    ("avg_pool2d(X, 2, count_include_pad=None)", r"avg_pool2d: count_include_pad must be True or"),
    ("avg_pool2d(X, 2, divisor_override=2.5)", r"avg_pool2d: divisor_override must be an int, got 2.5"),
    ("adaptive_avg_pool2d(X, 2.0)", r"adaptive_avg_pool2d: output_size must be an int"),
    ('adaptive_max_pool2d(X, "7")', r"adaptive_max_pool2d: output_size must be an int or 2 ints"),
    ("adaptive_max_pool2d(X, ((1, 2), 3))", r"adaptive_max_pool2d: output_size must be an int"),
    ("max_pool2d_backward(DY, i8(*DY.shape), 5)", r"input_shape must be a sequence of ints, got 5"),
    ('max_pool2d_backward(DY, i8(*DY.shape), "2899")', r"input_shape must be a sequence of ints"),
    ('elu(X, "1")', r"elu: alpha must be a real number, got '1' \(str\)"),
    ("elu(X, 1j)", r"elu: alpha must be a real number, got 1j"),
    ("elu(X, f4(1))", r"elu: alpha must be a real number, got array"),
    ("elu(X, None)", r"elu: alpha must be a real number, got None"),
    ("elu(X, True)", r"elu: alpha must be a real number, got True"),
    ("softmax(X, 1.0)", r"softmax: axis must be an int, got 1.0"),
    ("softmax(X, None)", r"softmax: axis must be an int, got None"),
    ("softmax(X, (1,))", r"softmax: axis must be an int"),
    ('dropout(X, "half")', r"dropout: p must be a real number, got 'half'"),
    ('dropout(X, rng="seed")', r"dropout: rng must be a numpy.random.Generator, an int or None"),
    ("dropout(X, rng=np.random.RandomState(0))", r"dropout: rng must be a numpy.random.Generator"),
    ("nll(f4(2, 3), i8(2), reduction=None)", r"nll: reduction must be one of 'mean'"),
    ("nll(f4(2, 3), i8(2), ignore_index=1.0)", r"nll: ignore_index must be an int"),
    ("hinge(f4(2, 3), i8(2), margin=None)", r"hinge: margin must be a real number"),
    ("batch_norm(f4(2, 3), None, None, f4(3), f4(3), 1)", r"batch_norm: training must be True or False"),
    ("local_response_norm(X, 2.0)", r"local_response_norm: size must be an int"),
    ('local_response_norm(X, 2, alpha="a")', r"local_response_norm: alpha must be a real number"),
    # control
    ('set_num_threads("2")', r"set_num_threads: n must be an int, got '2'"),
    ("set_num_threads(True)", r"set_num_threads: n must be an int, got True"),
    ("num_threads(1.5)", r"num_threads: n must be an int"),
    ("set_precision(None)", r"set_precision: mode must be one of"),
    ("algorithms(conv2d)", r"algorithms: op must be a string"),
    ('plan("conv2d", X, [1])', r"conv2d: weight must be a NumPy array"),
    ("avg_pool2d_backward(DY, None, 2)", r"avg_pool2d_backward: input_shape must be an int or a seq"),
    ("check_gradient(1, X)", r"check_gradient: f must be callable, got int"),
    ("check_gradient(lambda x: x, X)", r"check_gradient: f must return \(y, backward\)"),
    ("check_gradient(lambda x: (x, 1), X)", r"check_gradient: backward must be callable, got int"),
    ("check_gradient(lambda x: (x, np.copy), [1.0])", r"check_gradient: x must be a NumPy array"),
    ('check_gradient(lambda x: ("y", np.copy), X)', r"check_gradient: f must return an array y"),
    ("check_gradient(lambda x: (x, lambda dy: None), X)", r"backward must return an array"),
]
VALUE_ERRORS = [
    # shapes
    ("conv2d(X, f4(8, 3, 3, 3))",
     r"^conv2d: weight has 3 input channels, x has 4 and groups=1 "
     r"\(need x channels == groups \* weight.shape\[1\]\)$"),
    ("conv2d(f4(5, 6), W)", r"conv2d: x has 2 dimensions \(5, 6\), need 4 \(N, C, H, W\) or 3"),
    ("conv1d(X, W)", r"conv1d: x has 4 dimensions .*, need 3 \(N, C, W\) or 2 \(C, W\)"),
    ("conv2d(X, f4(8, 4, 3))", r"conv2d: weight has 3 dimensions .* \(out channels, x channels /"),
    ("conv2d(f4(2, 4, 0, 6), W)", r"conv2d: x has shape \(2, 4, 0, 6\), need at least 1 on every"),
    ("conv2d(f4(2, 0, 5, 6), f4(8, 0, 3, 3))", r"conv2d: x has shape .*, need at least 1 on"),
    ("conv2d(f4(0, 5, 6), W)", r"conv2d: x has shape \(0, 5, 6\)"),
    ("conv2d(X, f4(0, 4, 3, 3))", r"conv2d: weight has shape .*, need at least 1 on every axis"),
    ("conv2d(X, W, f4(7))", r"conv2d: bias has shape \(7,\), need \(8,\) \(one value per output"),
    ("conv2d(X, W, f4(8, 1))", r"conv2d: bias has shape \(8, 1\)"),
    ("conv2d(X, f4(8, 4, 7, 3))",
     r"conv2d: output height would be -1 \(x height 5, padding \(0, 0\), kernel 7, dilation 1, stride 1\)"),
    ("conv3d(f4(1, 1, 1, 2, 3), f4(1, 1, 1, 2, 4))", r"conv3d: output width would be 0"),
    ("conv2d_backward(f4(2, 8, 3, 3), X, W)", r"conv2d_backward: dy has shape .*, need \(2, 8, 3, 4\)"),
    ("conv_transpose2d(X, f4(5, 8, 3, 3))", r"weight has 5 input channels, x has 4 \(need x ch"),
    ("conv_transpose2d(X, WT, f4(4))", r"conv_transpose2d: bias has shape \(4,\), need \(8,\)"),
    ("conv_transpose2d(f4(1, 4, 1, 1), WT, padding=2)", r"output height would be -1 .*need at least 1"),
    ("conv_transpose2d_backward(f4(2, 8, 9, 8), X, WT)",
     r"conv_transpose2d_backward: dy has shape \(2, 8, 9, 8\), need \(2, 8, 7, 8\)$"),
    ("conv_transpose2d_backward(f4(2, 8, 9, 8), X, WT, stride=2)",
     r"need \(2, 8, 11, 13\) to \(2, 8, 12, 14\) \(by output_padding\)"),
    ("im2col(f4(5, 6), 2)", r"im2col: x has 2 dimensions .*, need \(N, C, \*spatial\)"),
    ("col2im(f4(2, 7, 9), (4, 4), 2)", r"col2im: cols has shape \(2, 7, 9\), need \(N, C \* 4, L\)"),
    ("col2im(f4(2, 8, 8), (4, 4), 2)", r"col2im: cols has 8 columns, need 9"),
    ("col2im(f4(2, 8, 8), (4, 4, 4, 4), 2)", r"output_size=.*need one int per spatial axis, 1 to 3"),
    ("max_pool2d(f4(2, 4, 5, 0), 2)", r"max_pool2d: x has shape \(2, 4, 5, 0\), need at least 1"),
    ("max_pool2d(X, 7)", r"max_pool2d: output height would be 0 "),
    ("max_pool2d(X, 9, 2, ceil_mode=True)", r"output height would be -1 .*ceil_mode"),
    ("avg_pool2d_backward(DY, X.shape, 2)", r"dy has shape .*, need \(2, 4, 2, 3\)"),
    ("max_pool2d_backward(DY, i8(2, 8, 3, 3), (2, 8, 9, 9))", r"indices has shape .*the shape of dy"),
    ("max_pool2d_backward(DY, i8(*DY.shape), (2, 7, 9, 9))", r"dy has shape .* and input_shape is"),
    ("max_pool2d_backward(DY, i8(*DY.shape), (7, 9))", r"input_shape has 2 dimensions \(7, 9\)"),
    ("adaptive_avg_pool2d_backward(DY, (8, 9, 9))", r"dy has shape .* and input_shape is"),
    ("relu_backward(f4(2), f4(3))", r"relu_backward: dy has shape \(2,\), need \(3,\) \(the shape of y"),
    ("softmax_backward(f4(2, 1), f4(2, 3))", r"softmax_backward: dy has shape \(2, 1\)"),
    ("maxout(f4(2, 5), 2)", r"maxout: axis 1 of x has size 5, need a multiple of pieces=2"),
    ("maxout(np.zeros(()), 2, 0)", r"maxout: x has no axes"),
    ("maxout_backward(f4(2, 3), i8(2, 2), 2)", r"maxout_backward: indices has shape"),
    ("dropout_backward(f4(2), np.ones(3, bool), 0.5)", r"dropout_backward: mask has shape \(3,\)"),
    ("softmax_cross_entropy(f4(2, 3), i8(3))", r"target has shape \(3,\) and logits has \(2, 3\), need \(2,"),
    ("softmax_cross_entropy(f4(2, 3), i8(2, 3))", r"probabilities have its dtype"),
    ("softmax_cross_entropy(f4(2, 3), f4(2))", r"target has shape \(2,\), need \(2, 3\) \(probabilities"),
    ("softmax_cross_entropy(f4(3), i8(1))", r"target has shape \(1,\) and logits has \(3,\), need \(\)"),
    ("softmax_cross_entropy(np.zeros(()), np.int64(0))", r"logits has shape \(\), need \(N, C, \*d\)"),
    ("nll(f4(2, 0), i8(2))", r"nll: log_probs has shape \(2, 0\), need .* with C at least 1"),
    ("nll(f4(2, 3), i8(2), weight=f4(2))", r"nll: weight has shape \(2,\), need \(3,\) \(one factor"),
    ("hinge(f4(2, 3, 4), i8(2, 4))", r"hinge: scores has 3 dimensions .*, need \(N, C\) or \(C,\)"),
    ("squared_error(f4(2, 3), f4(3))", r"squared_error: target has shape \(3,\), need \(2, 3\)"),
    ("sigmoid_cross_entropy(f4(2, 3), f4(2, 3), weight=f4(2))", r"weight has shape .* broadcasts to \(2, 3"),
    ("sigmoid_cross_entropy(f4(3), f4(3), pos_weight=f4(2, 3))", r"pos_weight has shape \(2, 3\)"),
    ("linear(f4(2, 3), f4(4, 5))", r"linear: x has shape \(2, 3\), weight \(4, 5\) \(need x.shape\[-1\] =="),
    ("linear(np.zeros(()), f8(4, 5))", r"linear: x has shape \(\)"),
    ("linear(f4(2, 3), f4(4, 3), f4(3))", r"linear: bias has shape \(3,\), need \(4,\)"),
    ("linear(f4(2, 0), f4(4, 0))", r"linear: weight has shape \(4, 0\), need \(out, in\) with at least 1"),
    ("linear_backward(f4(2, 5), f4(2, 3), f4(4, 3))", r"linear_backward: dy has shape .*need \(2, 4\)"),
    ("batch_norm(f4(3), None, None, None, None, True)", r"batch_norm: x has shape \(3,\), need \(N, C"),
    ("batch_norm(f4(2, 3), f4(2), None, f4(3), f4(3))", r"weight has shape \(2,\), need \(3,\) \(one value"),
    ("batch_norm(f4(1, 3), None, None, None, None, True)", r"1 value per channel \(training needs more"),
    ("batch_norm(f4(0, 3), None, None, None, None, True)", r"0 values per channel"),
    ("local_response_norm(f4(3), 2)", r"local_response_norm: x has shape \(3,\)"),
    ("local_response_norm_backward(f4(2, 3), f4(2, 4), 2, 1.0, 1.0, 1.0)", r"dy has shape \(2, 3\)"),
    # options
    ("conv2d(X, W, stride=0)", r"conv2d: stride=0, need at least 1 on every axis"),
    ("conv2d(X, W, stride=(1, 0))", r"conv2d: stride=\(1, 0\), need at least 1"),
    ("conv2d(X, W, stride=(1, 1, 1))", r"conv2d: stride=\(1, 1, 1\) has 3 values, need 1 or 2"),
    ("conv2d(X, W, stride=())", r"conv2d: stride=\(\) has 0 values"),
    ("conv2d(X, W, stride=10**30)", r"conv2d: stride=10*, need at most 2147483647"),
    ("conv2d(X, W, dilation=-1)", r"conv2d: dilation=-1, need at least 1"),
    ("conv2d(X, W, padding=-1)", r"conv2d: padding=-1, need at least 0 on every side"),
    ("conv2d(X, W, padding=((0, -1), (0, 0)))", r"conv2d: padding=.*, need at least 0"),
    ("conv2d(X, W, padding=(1, (2, 3)))", r"padding=.*need an int, one int per axis, or one \(low, high"),
    ("conv2d(X, W, padding=((1, 2, 3), (1, 2, 3)))", r"padding=.*one \(low, high\) pair per axis"),
    ("conv1d(f4(1, 9), f4(1, 1, 3), padding=(2, 0))", r"has 2 values.*written \(\(low, high\),\)"),
    ("conv2d(X, W, padding=2**31)", r"conv2d: padding=2147483648, need at most 2147483647"),
    ("conv2d(X, W, padding=2**31 - 1)", r"conv2d: an array of shape .* is larger than any memory"),
    ('conv2d(X, W, padding="VALID")', r"conv2d: padding='VALID', need one of 'valid', 'full', 'same'"),
    ('conv2d(X, W, padding_mode="mirror")', r"padding_mode='mirror', need one of 'zeros', 'reflect'"),
    ('conv2d(X, W, padding=5, padding_mode="reflect")', r"padding \(5, 5\) on an axis of size 5.*smaller"),
    ('conv2d(X, W, padding=6, padding_mode="circular")', r"padding \(6, 6\) on an axis of size 5.*at most"),
    ('conv2d(X, W, activation="elu")', r"conv2d: activation='elu', need one of None, 'relu'"),
    ("conv2d(X, W, groups=3)", r"conv2d: weight.shape\[0\] is 8 and groups=3 \(need a multiple"),
    ("conv2d(X, W, groups=2)", r"weight has 4 input channels, x has 4 and groups=2"),
    ("conv2d(X, W, groups=0)", r"conv2d: groups=0, need at least 1"),
    ('conv2d(X, W, algorithm="fastest")', r"conv2d: algorithm 'fastest' is unknown .*'im2col'"),
    ('conv2d_backward(DY, X, W, algorithm="fastest")', r"algorithm 'fastest' is unknown"),
    ("conv_transpose2d(X, WT, output_padding=1)", r"output_padding=1, need less than the stride or the"),
    ("conv_transpose2d(X, WT, output_padding=-1)", r"output_padding=-1, need at least 0"),
    ("im2col(X, 0)", r"im2col: kernel_size=0, need at least 1"),
    ("col2im(f4(2, 8, 9), (4, 0), 2)", r"col2im: output_size=\(4, 0\), need at least 1"),
    ("max_pool2d(X, 0)", r"max_pool2d: kernel_size=0, need at least 1"),
    ("max_pool2d(X, (2, 2, 2))", r"max_pool2d: kernel_size=\(2, 2, 2\) has 3 values, need 1 or 2"),
    ("max_pool2d(X, 2, stride=0)", r"max_pool2d: stride=0"),
    ("avg_pool2d(X, 2, divisor_override=0)", r"avg_pool2d: divisor_override=0, need None or a number"),
    ("avg_pool2d(X, 2, divisor_override=10**30)", r"divisor_override=10*, need at most"),
    ("adaptive_avg_pool2d(X, 0)", r"adaptive_avg_pool2d: output_size=0, need 1 to"),
    ("adaptive_avg_pool2d(X, (1, 2, 3))", r"output_size=\(1, 2, 3\) has 3 values, need 1 or 2"),
    ("max_pool2d_backward(DY, i8(*DY.shape), (2, 8, -1, 9))", r"input_shape=.*need sizes between 0"),
    ("max_pool2d_backward(DY, i8(*DY.shape), (2, 8, 2**40, 2**40))", r"larger than any memory"),
    ("leaky_relu(X, -0.1)", r"leaky_relu: negative_slope=-0.1, need a number >= 0"),
    ('leaky_relu(X, float("nan"))', r"leaky_relu: negative_slope=nan, need a finite number"),
    ("leaky_relu_backward(X, X, -1)", r"leaky_relu_backward: negative_slope=-1, need"),
    ("elu(X, -1)", r"elu: alpha=-1, need a number >= 0"),
    ("elu(X, 10**400)", r"elu: alpha=.*, need a finite number"),
    ("softmax(X, 4)", r"softmax: axis=4 is out of range for 4 dimensions"),
    ("softmax(X, -5)", r"softmax: axis=-5 is out of range"),
    ("softmax(np.zeros(()), 1)", r"softmax: axis=1 is out of range for 1 dimension$"),
    ("log_softmax(X, 10**30)", r"log_softmax: axis=10* is out of range"),
    ("maxout(X, 0)", r"maxout: pieces=0, need at least 1"),
    ("maxout(X, 2, 4)", r"maxout: axis=4 is out of range"),
    ("dropout(X, 1.5)", r"dropout: p=1.5, need a number between 0 and 1"),
    ("dropout(X, -0.1)", r"dropout: p=-0.1, need a number between 0 and 1"),
    ("dropout(X, rng=-1)", r"dropout: rng=-1, need at least 0"),
    ('nll(f4(2, 3), i8(2), reduction="avg")', r"nll: reduction='avg', need one of 'mean', 'sum', 'none'"),
    ("nll(f4(2, 3), i8(2), ignore_index=2**70)", r"nll: ignore_index=.*, need at most"),
    ("softmax_cross_entropy(f4(2, 3), f4(2, 3), ignore_index=1)",
     r"ignore_index=1 and target has dtype float32 \(ignore_index is for class indices"),
    ("softmax_cross_entropy(f4(2, 3), i8(2), label_smoothing=1.1)",
     r"label_smoothing=1.1, need a number between 0 and 1"),
    ('hinge(f4(2, 3), i8(2), margin=float("inf"))', r"hinge: margin=inf, need a finite number"),
    ("batch_norm(f4(2, 3), None, None, None, None)", r"running_mean is None, need an array \(3,\) when"),
    ("batch_norm_backward(f4(2, 3), f4(2, 3), None, training=False)", r"running_mean is None"),
    ("batch_norm(f4(2, 3), None, None, f4(3), f4(3), momentum=2)", r"momentum=2, need a number between"),
    ("batch_norm(f4(2, 3), None, None, f4(3), f4(3), eps=-1)", r"batch_norm: eps=-1, need a number >= 0"),
    ('batch_norm(f4(2, 3), None, None, f4(3), f4(3), eps=float("nan"))', r"eps=nan, need a finite"),
    ("local_response_norm(X, 0)", r"local_response_norm: size=0, need at least 1"),
    ('local_response_norm(X, 2, beta=float("inf"))', r"beta=inf, need a finite number"),
    # control
    ("set_num_threads(0)", r"set_num_threads: n=0, need at least 1"),
    ("set_num_threads(10**9)", r"set_num_threads: n=1000000000, need at most 1024"),
    ("num_threads(0)", r"num_threads: n=0, need at least 1"),
    ('set_precision("exact")', r"set_precision: mode='exact', need one of 'strict', 'fast', 'tf32'"),
    ('precision("exact")', r"precision: mode='exact', need one of"),
    ('show_config("json")', r"show_config: mode='json', need one of"),
    ('algorithms("conv4d")', r"algorithms: 'conv4d' is not an operation, need one of conv1d, "),
    ('plan("conv4d", X, W)', r"plan: 'conv4d' is not an operation"),
    ('plan("conv2d_backward", X, W)', r"plan: .* ask for 'conv2d_backward_input' or"),
    ('plan("conv2d", X, f4(8, 3, 3, 3))', r"conv2d: weight has 3 input channels"),
    ('plan("conv2d", X, W, algorithm="fastest")', r"algorithm 'fastest' is unknown"),
    ("check_gradient(lambda x: (x, np.sum), X)", r"backward returned shape \(\), need"),
    ("check_gradient(lambda x: (x, np.copy), X, X[0])", r"check_gradient: dy has shape"),
    ("check_gradient(lambda x: (np.random.default_rng().random(3), np.copy), f8(3))",
     r"check_gradient: f returned another y for the same x"),
]
# fmt: on


def raised_by(call):
    with pytest.raises((ValueError, TypeError)) as caught:
        eval(call, {**vars(fc), **globals()})
    return caught


@pytest.mark.parametrize("call, message", TYPE_ERRORS, ids=[call for call, _ in TYPE_ERRORS])
def test_type_error(call, message):
    caught = raised_by(call)
    assert caught.type is TypeError and caught.match(message)


@pytest.mark.parametrize("call, message", VALUE_ERRORS, ids=[call for call, _ in VALUE_ERRORS])
def test_value_error(call, message):
    caught = raised_by(call)
    assert caught.type is ValueError and caught.match(message)


def test_pandas_objects_are_refused():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"relu: x must be a NumPy array, got Series.*np\.asarray"):
        fc.relu(pandas.Series([1.0]))


# -- indices and targets, checked where they are used --------------------------------------------------------


@pytest.mark.parametrize("backend", [fc, fc.reference], ids=["fastconv", "reference"])
def test_indices_and_targets_out_of_range(backend):
    dy = f4(1, 1, 1, 1)
    for index in (4, -2, 2**62, -(2**63)):
        with pytest.raises(ValueError, match=rf"max_pool2d_backward: .*{index}.*4"):
            backend.max_pool2d_backward(dy, np.full(dy.shape, index), (1, 1, 2, 2))
    for index in (-1, 2, 2**62):
        with pytest.raises(ValueError, match=rf"maxout_backward: .*{index}"):
            backend.maxout_backward(f4(1, 1), np.full((1, 1), index), 2)
    for target in (3, -1, 2**62):
        with pytest.raises(ValueError, match=rf"softmax_cross_entropy: .*{target}.*3"):
            backend.softmax_cross_entropy(f4(1, 3), np.array([target]))
        with pytest.raises(ValueError, match=rf"nll: .*{target}"):
            backend.nll(f4(1, 3), np.array([target]))
        with pytest.raises(ValueError, match=rf"hinge: .*{target}"):
            backend.hinge(f4(1, 3), np.array([target]))
    for target in (np.array([2**64 - 1], np.uint64), np.array([255], np.uint8)):
        with pytest.raises(ValueError, match=r"softmax_cross_entropy: target \d+ is not a class .*3"):
            backend.softmax_cross_entropy(f4(1, 3), target)


# -- out= ----------------------------------------------------------------------------------------------------


IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
SHARED = np.zeros(36, np.float32)
READ_ONLY = f4(2, 3, 4)
READ_ONLY.flags.writeable = False
BYTES = np.zeros(24 * 4 + 1, np.uint8)

# (out, x, message) for a 1x1 convolution of a (2, 3, 4) image
OUTS = [
    (f4(2, 3, 5), IMAGE, r"conv2d: out has shape \(2, 3, 5\), need \(2, 3, 4\) \(the shape of the result\)"),
    (f4(1, 2, 3, 4), IMAGE, r"conv2d: out has shape \(1, 2, 3, 4\), need \(2, 3, 4\)"),
    (f4(24), IMAGE, r"conv2d: out has shape \(24,\)"),
    (
        f4(2, 4, 3).transpose(0, 2, 1),
        IMAGE,
        r"conv2d: out has strides .*, need a C-contiguous, aligned array",
    ),
    (f4(2, 3, 8)[:, :, ::2], IMAGE, r"conv2d: out has strides"),
    (f4(2, 3, 4)[::-1], IMAGE, r"conv2d: out has strides"),
    (BYTES[1:].view(np.float32).reshape(2, 3, 4), IMAGE, r"conv2d: out has strides .*, need .* aligned"),
    (READ_ONLY, IMAGE, r"conv2d: out is read-only, need a writable array"),
    (IMAGE, IMAGE, r"conv2d: out shares memory with x \(the result must not overlap an input\)"),
    (SHARED[12:].reshape(2, 3, 4), SHARED[:24].reshape(2, 3, 4), r"conv2d: out shares memory with x"),
    (
        SHARED[12:].reshape(2, 3, 4),
        SHARED[:24].reshape(2, 3, 4)[:, ::-1],
        r"conv2d: out shares memory with x",
    ),
]


@pytest.mark.parametrize("out, x, message", OUTS, ids=range(len(OUTS)))
def test_out_is_refused(out, x, message):
    with pytest.raises(ValueError, match=message):
        fc.conv2d(x, f4(2, 2, 1, 1), out=out)


def test_out_may_be_interleaved_with_inputs():
    """Neighbours in one buffer that share no element are no overlap."""
    buffer = np.zeros((2, 2, 3, 4), np.float32)
    x, out = buffer
    assert fc.conv2d(x, f4(2, 2, 1, 1), out=out) is out
    bias = np.zeros(49, np.float32)
    weight = f4(2, 2, 1, 1)
    with pytest.raises(ValueError, match="conv2d: out shares memory with bias"):
        fc.conv2d(IMAGE, weight, bias[:2], out=bias[:24].reshape(2, 3, 4))
    assert fc.conv2d(IMAGE, weight, bias[24:26], out=bias[:24].reshape(2, 3, 4)).shape == (2, 3, 4)


BAD_CALLS = [
    lambda out: fc.conv2d(X, f4(8, 3, 3, 3), out=out),
    lambda out: fc.conv2d(X, W, f4(7), out=out),
    lambda out: fc.conv2d(X, W, stride=0, out=out),
    lambda out: fc.conv2d(X, W, padding="some", out=out),
    lambda out: fc.conv2d(X, W, algorithm="fastest", out=out),
    lambda out: fc.conv2d(X, W.astype("f8"), out=out),
    lambda out: fc.conv2d(X, W, padding=1, out=out),
    lambda out: fc.reference.conv2d(X, W, algorithm="im2col", out=out),
]


@pytest.mark.parametrize("call", BAD_CALLS)
def test_out_is_untouched_when_arguments_are_at_fault(call):
    out = np.frombuffer(b"\xa5" * (4 * 2 * 8 * 3 * 4), np.float32).reshape(2, 8, 3, 4).copy()
    before = out.tobytes()
    with pytest.raises((ValueError, TypeError, fc.UnsupportedError)):
        call(out)
    assert out.tobytes() == before


# -- running statistics --------------------------------------------------------------------------------------


def test_running_statistics_must_be_writable_and_apart():
    x, mean, var = f4(4, 3), f4(3), f4(3)
    mean.flags.writeable = False
    with pytest.raises(ValueError, match="batch_norm: running_mean is read-only, need a writable array"):
        fc.batch_norm(x, None, None, mean, var, True)
    with pytest.raises(ValueError, match="batch_norm: running_var shares memory with running_mean"):
        fc.batch_norm(x, None, None, var, var, True)
    with pytest.raises(ValueError, match="batch_norm: running_mean shares memory with x"):
        fc.batch_norm(x, None, None, x[0], var, True)
    with pytest.raises(ValueError, match="batch_norm: running_var shares memory with weight"):
        fc.batch_norm(x, var, None, None, var, True)
    assert fc.reference.batch_norm(x, None, None, mean, var, False).shape == (4, 3)  # read only in prediction


# -- what a backend or a device cannot do --------------------------------------------------------------------


def test_unsupported():
    with pytest.raises(fc.UnsupportedError, match="conv2d: .*'im2col'"):
        fc.reference.conv2d(X, W, algorithm="im2col")
    with pytest.raises(fc.UnsupportedError, match="conv2d_backward_input: .*'im2col'"):
        fc.reference.conv2d_backward(DY, X, W, algorithm="im2col")
    assert issubclass(fc.UnsupportedError, NotImplementedError) and issubclass(fc.DeviceError, RuntimeError)
    for error in (fc.UnsupportedError("a"), fc.DeviceError("b")):
        assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_a_named_algorithm_is_never_replaced():
    x, weight, dy = f4(1, 4, 9, 9), f4(4, 4, 1, 1), f4(1, 4, 9, 9)
    with pytest.raises(fc.UnsupportedError, match="conv2d: algorithm 'winograd' "):
        fc.conv2d(x, weight, algorithm="winograd")
    with pytest.raises(fc.UnsupportedError, match="conv2d: algorithm 'winograd' "):
        fc.plan("conv2d", x, weight, algorithm="winograd")
    with pytest.raises(fc.UnsupportedError, match="conv2d.*: algorithm 'winograd' "):
        fc.conv2d_backward(dy, x, weight, algorithm="winograd")


@pytest.mark.parametrize("mask", list(itertools.product((True, False), repeat=3)))
def test_a_named_algorithm_is_valid_for_every_gradient_before_any_is_computed(mask, monkeypatch):
    computed = []

    class Backend:  # one that cannot do weight gradients by "half"
        def plan(direction, problem, algorithm):
            if direction.endswith("_weight"):
                raise fc.UnsupportedError(f"{direction}: no")

        conv_backward_input = conv_backward_weight = channel_sum = lambda *arguments: computed.append(
            arguments
        )

    monkeypatch.setattr(_backends, "_host", Backend)
    if mask[1]:
        with pytest.raises(fc.UnsupportedError, match="conv2d_backward_weight: no"):
            fc.conv2d_backward(DY, X, W, output_mask=mask, algorithm="half")
    else:
        fc.conv2d_backward(DY, X, W, output_mask=mask, algorithm="half")
    assert len(computed) == (0 if mask[1] else sum(mask))


class OnDevice:
    """Looks like an array on a GPU."""

    def __init__(self, shape, dtype="<f4"):
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": dtype, "data": (0, False), "version": 3}


def test_mixed_devices():
    there = OnDevice((2, 4, 5, 6))
    with pytest.raises(
        fc.DeviceError, match=r"conv2d: 1 of 2 arrays live on a GPU.*nothing is copied silently"
    ):
        fc.conv2d(there, W)
    with pytest.raises(fc.DeviceError, match=r"relu_backward: 1 of 2 arrays live on a GPU"):
        fc.relu_backward(there, X)
    with pytest.raises(fc.DeviceError, match=r"conv2d: the reference computes on host arrays"):
        fc.reference.conv2d(there, W)
    with pytest.raises(ValueError, match="conv2d: weight has 3 input channels"):  # checked like any other
        fc.conv2d(there, OnDevice((8, 3, 3, 3)))
    with pytest.raises(TypeError, match="relu: x has dtype int16"):
        fc.relu(OnDevice((2,), "<i2"))


def test_no_device():
    if fc.cuda.is_available():
        pytest.skip("there is a CUDA device")
    calls = [
        ("relu", lambda: fc.cuda.relu(X)),
        ("conv2d", lambda: fc.cuda.conv2d(X, W)),
        ("relu", lambda: fc.relu(OnDevice((2,)))),
        ("to_device", lambda: fc.cuda.to_device(X)),
        ("to_host", lambda: fc.cuda.to_host(X)),
        ("synchronize", lambda: fc.cuda.synchronize()),
    ]
    for op, call in calls:
        with pytest.raises(fc.DeviceError, match=f"^{op}: no CUDA device \\(numba.cuda "):
            call()


# -- nothing else leaves the package -------------------------------------------------------------------------


class Indexable:
    def __index__(self):
        return 2


class Rude:
    def __repr__(self):
        raise RuntimeError("no")


def test_what_counts_as_a_number():
    y = fc.reference.conv2d(X, W, stride=2)
    for two in (np.int8(2), np.uint64(2), np.array(2), Indexable(), (2,), [2, np.int64(2)], np.array([2, 2])):
        assert np.array_equal(fc.reference.conv2d(X, W, stride=two), y)
    y = fc.reference.elu(X, 0.5)
    for half in (np.float32(0.5), np.float64(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")):
        assert np.array_equal(fc.reference.elu(X, half), y)
    with pytest.raises(TypeError, match="conv2d: stride must be .*, got <Rude instance"):
        fc.conv2d(X, W, stride=Rude())
    with pytest.raises(ValueError, match="conv2d: stride=.*, need at most 2147483647"):
        fc.conv2d(X, W, stride=10**5000)  # more digits than Python prints


JUNK = [
    None, True, np.True_, 0, -1, 3, 2**31, -(2**63), 10**30, 1.5, float("nan"), float("inf"), 1j, "",
    "same", b"x", (), (1, 2), [1, [2, 3]], ((1, 2), (3, 4)), {1: 2}, {1, 2}, object(), int, len, Rude(),
    OnDevice((2, 3)), np.float32(2), np.int64(3), np.array(2), np.array([1, 2]), np.zeros((0,)), np.zeros(()),
    np.ma.ones(3), np.ones(3, bool), np.ones((2, 4), "f2"), np.ones((2, 4, 5, 6), ">f4"),
    np.ones((2, 4, 5, 6))[::-1, ::2], np.array(["a"]), np.array([object()]),
    np.broadcast_to(np.float32(1), (2**59, 1, 1)),
]  # fmt: skip


def good_arguments(op):
    """Arguments that the operation computes, by name."""
    n = next((int(d) for d in op if d.isdigit()), 2)
    x, kernel, out = (2, 4, 5, 6, 7)[: n + 2], (3,) * n, (3, 4, 5)[:n]
    good = {"x": f4(*x), "weight": f4(4, 4, *kernel), "dy": f4(2, 4, *out), "padding": 0, "dilation": 1}
    if "transpose" in op:
        good["dy"] = f4(2, 4, *(size + 2 for size in x[2:]))
    elif "pool" in op:
        good.update(kernel_size=3, stride=1, input_shape=x, output_size=2, indices=i8(2, 4, *out))
    elif op == "col2im":
        good.update(cols=f4(2, 16, 20), output_size=(5, 6), kernel_size=2)
    elif op == "im2col":
        good.update(kernel_size=2)
    elif "linear" in op and "relu" not in op:
        good.update(x=f4(2, 3), weight=f4(4, 3), dy=f4(2, 4))
    elif "norm" in op:
        good.update(dy=good["x"], weight=f4(4), bias=f4(4), running_mean=f4(4), running_var=f4(4))
        good.update(size=3, alpha=1.0, beta=0.5, k=1.0)
    elif "conv" not in op:
        good.update(x=f4(2, 4), dy=f4(2, 4), y=f4(2, 4), indices=i8(2, 4), pieces=2, p=0.5)
        good.update(mask=np.ones((2, 4), bool), logits=f4(2, 4), log_probs=f4(2, 4), scores=f4(2, 4))
        good.update(prediction=f4(2, 4), target=i8(2), op="max_pool2d")
        if op in ("sigmoid_cross_entropy", "squared_error"):
            good["target"] = f4(2, 4)
        good.pop("weight")
    return {name: value for name, value in good.items() if name in parameters(op)}


def parameters(op):
    return [p for p in inspect.signature(getattr(fc, op)).parameters if p not in ("args", "kwargs")]


@pytest.mark.parametrize("op", fc.functional.__all__)
def test_junk(op):
    """Each argument, and pairs at random, replaced by junk: a result, or an error of the contract."""
    good, names = good_arguments(op), parameters(op)
    rng = np.random.default_rng(0)
    trials = [{name: junk} for name in names for junk in JUNK]
    for _ in range(50 * (len(names) > 1)):
        trials.append({name: JUNK[rng.integers(len(JUNK))] for name in rng.choice(names, 2, replace=False)})
    for backend in (fc, fc.reference):
        getattr(backend, op)(**good)
        for junk in trials:
            try:
                getattr(backend, op)(**{**good, **junk})
            except MemoryError:
                pass
            except (ValueError, TypeError, fc.UnsupportedError, fc.DeviceError) as error:
                assert type(error) in (ValueError, TypeError, fc.UnsupportedError, fc.DeviceError)
                assert str(error)
