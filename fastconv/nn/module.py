"""Parameter and Module: who owns the arrays, under which names, and how they are saved, loaded and moved.

Nothing here computes. A layer (see the other files of this package) subclasses `Module` and writes `forward`
and `predict`; names, registration, gradients' accumulation and the state dictionary are settled in this file.
"""

import threading

import numpy as np

from .. import _arithmetic as arithmetic


class Lock:
    """A `threading.Lock` that may be copied and pickled with its owner: the copy gets a lock of its own."""

    __slots__ = ("_lock",)

    def __init__(self):
        self._lock = threading.Lock()

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exception):
        return self._lock.__exit__(*exception)

    def __reduce__(self):
        return Lock, ()


class Parameter:
    """A trainable array and the gradient that backward calls have added up.

    Attributes
    ----------
    data : array
        The value. An optimiser changes it in place; assigning another array of the same shape is fine too.
    grad : array or None
        Sum of the gradients since the last `zero_grad()`; None until a backward call first reaches it.
    """

    __slots__ = ("data", "grad", "_lock", "__weakref__")

    def __init__(self, data):
        self.data = data
        self.grad = None
        self._lock = Lock()

    @property
    def shape(self):
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def size(self):
        return self.data.size

    def accumulate(self, gradient):
        """Add `gradient` (same shape; None adds nothing) to `.grad`. Safe from several threads at once.

        No array is written in place: `gradient` may be the caller's own, and a `.grad` taken earlier stays as
        it was.
        """
        if gradient is None:
            return
        if tuple(gradient.shape) != tuple(self.data.shape):
            raise ValueError(
                f"Parameter.accumulate: gradient has shape {gradient.shape}, "
                f"the parameter {self.data.shape} (need equal shapes)"
            )
        with self._lock:
            self.grad = gradient if self.grad is None else arithmetic.add(self.grad, gradient)

    def zero_grad(self):
        """Forget the gradient: `.grad` becomes None."""
        self.grad = None

    def __repr__(self):
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


class Module:
    """Base of every layer: `y = layer(x)` predicts, `y, backward = layer.forward(x)` trains.

    A subclass writes two methods::

        def predict(self, x):            # keeps nothing
            return y

        def forward(self, x):
            def backward(dy):            # adds into the parameters' .grad, returns the gradient of x
                return dx
            return y, backward

    Attributes that hold a `Parameter` or a `Module` register themselves under their name, and so do the items
    of lists, tuples and dictionaries of modules (`blocks.0.weight`). Arrays that belong to the state without
    being trained (running statistics) are named with `register_buffer`. A child's names get its attribute's
    name and a dot in front: `conv1.weight`. An object reached under two names is one parameter: it is trained
    once, and saved under both names.
    """

    _buffer_names = ()
    keeps_float32 = False  # whether `to` leaves this layer's own arrays in float32 when others become 16 bits

    def forward(self, x):
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x) -> (y, backward)")

    def predict(self, x):
        raise NotImplementedError(f"{type(self).__name__} does not define predict(x) -> y")

    def __call__(self, x):
        return self.predict(x)

    # ---- registration --------------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        if isinstance(self.__dict__.get(name), Parameter) and not (
            value is None or isinstance(value, Parameter)
        ):
            raise TypeError(
                f"{type(self).__name__}.{name} is a Parameter, got {type(value).__name__} "
                f"(assign to .{name}.data, or a Parameter, or None)"
            )
        super().__setattr__(name, value)

    def register_buffer(self, name, value):
        """Set attribute `name` to an array that is saved but not trained, or to None: no such buffer."""
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)
        setattr(self, name, value)

    def named_children(self):
        """Yield (name, module) of the direct children, in the order of assignment."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{name}.{key}", item) for key, item in items if isinstance(item, Module))

    def named_modules(self, prefix=""):
        """Yield (dotted name, module) of this module (name "") and all below it, one entry per name."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named_slots(self):
        """Yield (dotted name, owner, attribute) of every parameter and buffer, one entry per name."""
        for prefix, module in self.named_modules():
            own = [name for name, value in vars(module).items() if isinstance(value, Parameter)]
            own += [name for name in module._buffer_names if getattr(module, name) is not None]
            yield from ((f"{prefix}.{name}" if prefix else name, module, name) for name in own)

    def named_parameters(self):
        """Yield (dotted name, Parameter); a shared one once, under its first name."""
        seen = set()
        for name, module, attribute in self._named_slots():
            value = getattr(module, attribute)
            if isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def parameters(self):
        """List of the parameters, each once, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters()]

    def zero_grad(self):
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    # ---- state ---------------------------------------------------------------------------------------------

    def _state(self):
        """{dotted name: the array itself}, parameters and buffers."""
        state = {}
        for name, module, attribute in self._named_slots():
            value = getattr(module, attribute)
            state[name] = value.data if isinstance(value, Parameter) else value
        return state

    def state_dict(self):
        """{dotted name: copy as a NumPy array} of parameters and buffers: PyTorch's names and shapes.

        Arrays of 16 bits, of which NumPy lacks one kind, come as float32: the same numbers.
        """
        return {
            name: array.copy() if isinstance(array, np.ndarray) else _to_host(array)
            for name, array in self._state().items()
        }

    def load_state_dict(self, state, strict=True):
        """Take the values from `state`, a mapping from dotted name to array, as `state_dict` returns it.

        Everything is checked before anything changes. Values are copied, and cast to the dtype that the
        module has where no kind is lost (float64 to float32 is fine, float to integer is not).

        Returns
        -------
        (missing, unexpected) : two lists of names; both empty when `strict`.

        Raises
        ------
        ValueError
            Names what is wrong: a shape or dtype that differs, two values for one shared parameter; when
            `strict`, also names that the state lacks and names that the module lacks. The module is as it
            was.
        """
        slots = list(self._named_slots())
        current = self._state()
        like = {name: arithmetic.computed(array) for name, array in current.items()}
        missing = [name for name in current if name not in state]
        unexpected = sorted(str(name) for name in state if name not in current)
        faults = []
        if strict and missing:
            faults.append("missing " + ", ".join(missing))
        if strict and unexpected:
            faults.append("unexpected " + ", ".join(unexpected))

        new, shared = {}, {}
        for name, module, attribute in slots:
            if name not in state:
                continue
            value, old = np.asarray(state[name]), current[name]
            if value.shape != old.shape:
                faults.append(f"{name} has shape {value.shape}, the module {old.shape}")
            elif value.dtype.kind not in "fiu" or not np.can_cast(value.dtype, like[name], "same_kind"):
                faults.append(f"{name} has dtype {value.dtype}, the module {arithmetic.dtype(old)}")
            else:
                first = shared.setdefault(id(getattr(module, attribute)), name)
                if first in new and not np.array_equal(new[first], value.astype(like[name]), equal_nan=True):
                    faults.append(f"{name} and {first} are one shared parameter but have different values")
                new[name] = np.array(value, dtype=like[name], order="C")
        if faults:
            raise ValueError(f"{type(self).__name__}.load_state_dict: " + "; ".join(faults))

        move = _mover(self._device())
        for name, array in new.items():
            if array.dtype.kind == "f":
                new[name] = arithmetic.cast(move(array), arithmetic.dtype(current[name]))
        for name, module, attribute in slots:
            if name in new:
                value = getattr(module, attribute)
                if isinstance(value, Parameter):
                    value.data = new[name]
                else:
                    setattr(module, attribute, new[name])
        return missing, unexpected

    def _device(self):
        return "cpu" if all(isinstance(array, np.ndarray) for array in self._state().values()) else "cuda"

    def to(self, device, dtype=None):
        """Move parameters, gradients and floating buffers to "cuda" or back to "cpu"; returns the module.

        dtype: "float32", "float64", and on "cuda" also "float16" and "bfloat16", to convert them, or None to
        leave them as they are (16 bits become float32 on "cpu"). Layers that normalise by statistics keep
        their parameters and buffers in float32 when the others have 16 bits; optimisers keep float32 masters.
        Raises DeviceError where there is no such device, ValueError for other words; nothing has moved then.
        Move a model before giving its parameters to an optimiser.
        """
        move, short = _mover(device), _short(device, dtype)
        slots = [(module, name, getattr(module, name)) for _, module, name in self._named_slots()]
        moved = []
        for module, _, value in slots:
            of = "float32" if short and module.keeps_float32 else dtype
            if isinstance(value, Parameter):
                moved.append(tuple(a if a is None else _moved(a, move, of) for a in (value.data, value.grad)))
            else:
                moved.append(value if value.dtype.kind in "iu" else _moved(value, move, of))
        for (module, name, value), new in zip(slots, moved):
            if isinstance(value, Parameter):
                value.data, value.grad = new
            else:
                setattr(module, name, new)
        return self

    # ---- text ----------------------------------------------------------------------------------------------

    def extra_repr(self):
        """The options of the layer, as they appear between the parentheses of its repr."""
        return ""

    def __repr__(self):
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        options = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({options})"
        return f"{type(self).__name__}({options}\n  " + "\n  ".join(lines) + "\n)"


def _moved(array, move, dtype):
    """The array where `move` takes it, in a dtype (None: its own)."""
    array = move(array)
    return array if dtype is None else arithmetic.cast(array, dtype)


def _short(device, dtype):
    """Whether a dtype has 16 bits; ValueError for words that `to` does not know."""
    short = dtype in ("float16", "bfloat16")
    if not (dtype in (None, "float32", "float64") or short and device == "cuda"):
        rule = "'float32' or 'float64'" + (", 'float16' or 'bfloat16'" if device == "cuda" else "")
        raise ValueError(f"to: dtype is {dtype!r} on {device!r} (need {rule})")
    return short


def _mover(device):
    """Function that takes an array to `device`."""
    if device == "cpu":
        return _to_host
    if device == "cuda":
        from fastconv import cuda

        return cuda.to_device
    raise ValueError(f"to: device is {device!r} (need 'cpu' or 'cuda')")


def _to_host(array):
    return array if isinstance(array, np.ndarray) else arithmetic.to_host(array)
