"""The simple kernels on floats of 16 bits: the same text, with conversions where it reads and writes
elements.

A kernel computes in the dtype of its data. float16 and bfloat16 are only ways to keep float32 numbers short,
so that for arrays of these a variant of the kernel is compiled in which

- an element that is read, ``x[i]``, becomes ``widen(x[i])``, a float32;
- an element that is written, ``y[i] = value``, becomes ``y[i] = narrow(value)``, rounded to nearest even;
- ``y.dtype.type``, the dtype to compute in, becomes float32;
- a function that is given such an array is replaced by its own variant.

Nothing else changes, and what can be read in the kernel is what is computed. bfloat16, which numba's arrays
do not know, is kept as uint16, the upper half of a float32.
"""

import ast
import functools
import inspect
import textwrap

import numpy as np
from numba import float32, int32, types, uint16, uint32

from .. import _arrays
from .launch import device

if _arrays.SIMULATOR:

    def widen_float16(v):
        return np.float32(v)

    def narrow_float16(v):
        return np.float16(v)

    def widen_bfloat16(v):
        return np.array(int(v) << 16, np.uint32).view(np.float32)[()]

    def narrow_bfloat16(v):
        return np.uint16(_rounded(int(np.array(v, np.float32).view(np.uint32))))

    float32 = np.float32

else:
    from numba.cuda import libdevice

    @device
    def widen_float16(v):
        return float32(v)

    @device
    def narrow_float16(v):
        return types.float16(float32(v))

    @device
    def widen_bfloat16(v):
        return libdevice.int_as_float(int32(uint32(v) << uint32(16)))

    @device
    def narrow_bfloat16(v):
        return uint16(_rounded(uint32(libdevice.float_as_int(float32(v)))))


@device
def _rounded(bits):
    """The upper half of a float32's bits, to nearest even; a NaN is made quiet, lest it become infinite."""
    if bits & 0x7FFFFFFF > 0x7F800000:
        return (bits >> 16) | 0x40
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


CONVERSIONS = {
    "widen_float16": widen_float16, "narrow_float16": narrow_float16,
    "widen_bfloat16": widen_bfloat16, "narrow_bfloat16": narrow_bfloat16,
}  # fmt: skip


class _Converted(ast.NodeTransformer):
    """Rewrites a function whose parameters in `short` (name -> dtype name) are arrays of 16 bits."""

    def __init__(self, short, scope):
        self.short, self.scope = short, scope

    def _dtype(self, node):
        """The dtype's name of what an element is taken of, if that is short."""
        named = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        return self.short.get(node.value.id) if named else None

    def visit_Subscript(self, node):
        node, dtype = self.generic_visit(node), self._dtype(node)
        read = dtype is not None and isinstance(node.ctx, ast.Load)
        return _call(f"widen_{dtype}", node) if read else node

    def visit_Assign(self, node):
        node = self.generic_visit(node)
        dtype = self._dtype(node.targets[0])
        if dtype is not None:
            node.value = _call(f"narrow_{dtype}", node.value)
        return node

    def visit_AugAssign(self, node):
        if self._dtype(node.target) is None:
            return self.generic_visit(node)
        read = ast.Subscript(node.target.value, node.target.slice, ast.Load())
        return self.visit_Assign(ast.Assign([node.target], ast.BinOp(read, node.op, node.value)))

    def visit_Attribute(self, node):
        inner = node.value
        if node.attr == "type" and isinstance(inner, ast.Attribute) and inner.attr == "dtype":
            if isinstance(inner.value, ast.Name) and inner.value.id in self.short:
                return ast.Name("float32", ast.Load())
        return self.generic_visit(node)

    def visit_Call(self, node):
        node = self.generic_visit(node)
        given = [self.short.get(getattr(a, "id", None)) for a in node.args]
        if any(given) and isinstance(node.func, ast.Name):
            name = "_".join([node.func.id, *(d or "" for d in given)])
            self.scope[name] = device(variant(self.scope[node.func.id], tuple(given)))
            node.func = ast.Name(name, ast.Load())
        return node


def _call(name, argument):
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])


@functools.lru_cache(maxsize=1024)
def variant(function, dtypes):
    """The function for parameters of which those with a name in `dtypes` ("float16", "bfloat16") are short.

    One that was made of text has it as its attribute `text`.
    """
    text = getattr(function, "text", None) or textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(text)
    definition = next(n for n in tree.body if isinstance(n, ast.FunctionDef))
    definition.decorator_list = []
    parameters = [a.arg for a in definition.args.args]
    short = {name: dtype for name, dtype in zip(parameters, dtypes) if dtype}
    scope = {**function.__globals__, **CONVERSIONS, "float32": float32}
    made = ast.Module([_Converted(short, scope).visit(definition)], [])
    exec(compile(ast.fix_missing_locations(made), f"<{function.__name__} of 16 bits>", "exec"), scope)
    return scope[function.__name__]
