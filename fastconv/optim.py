"""Optimisers: SGD, Adagrad, Adadelta, RMSprop, Adam, with the equations and defaults of `torch.optim`.

`step()` changes every parameter's `.data` in place from its `.grad`; one whose `.grad` is None is left alone.
`weight_decay` adds weight_decay * data to the gradient (L2 regularisation). Options are attributes
(`optimizer.lr`) and may be changed between steps. Everything is computed in the parameter's dtype, element by
element, where the parameter lives. Of a parameter of 16 bits (on a device), in which small steps would be
lost, the optimiser keeps a float32 copy, its "master": steps are made there, with float32 state, and the
parameter is the master rounded. What somebody else changes in the parameter counts from the next step on.

The equations are the small functions in front of each class, rules for `_arithmetic.apply`: they compute the
new value of one element, or of a piece of an array, and the same text runs on the host and on a device.
"""

import functools

import numpy as np

from . import _arithmetic as arithmetic
from .nn.module import Parameter

sqrt = np.sqrt  # what rules call; on a device they get another one


class Optimizer:
    """Base: the parameters, their state and its dictionary. A subclass writes `_update` and names its arrays.

    Parameters
    ----------
    params : iterable of `Parameter`, such as `model.parameters()`
    **options : what `state_dict` saves as options, checked to be >= 0

    Raises TypeError for anything but Parameters, ValueError for none or the same twice.
    """

    arrays = ()  # names of what a parameter's state may hold

    def __init__(self, params, **options):
        name = type(self).__name__
        self.params = list(params)
        for parameter in self.params:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"{name}: params holds {type(parameter).__name__} (need nn.Parameter)")
        if not self.params:
            raise ValueError(f"{name}: params is empty (need at least one parameter)")
        if len({id(parameter) for parameter in self.params}) != len(self.params):
            raise ValueError(f"{name}: params holds a parameter twice (need each once)")
        for option, value in options.items():
            if not np.all(np.asarray(value) >= 0):  # NaN fails too
                raise ValueError(f"{name}: {option} is {value} (need >= 0)")
            setattr(self, option, tuple(map(float, value)) if isinstance(value, tuple) else value)
        self._options = tuple(options)
        self._state = [{} for _ in self.params]

    def zero_grad(self):
        """Forget the gradients of all parameters."""
        for parameter in self.params:
            parameter.zero_grad()

    def step(self):
        """One update of every parameter that has a gradient."""
        for parameter, state in zip(self.params, self._state):
            if parameter.grad is not None:
                data, rounded = parameter.data, None
                if arithmetic.is_short(data):
                    if "master" not in state:
                        state["master"] = arithmetic.cast(data, "float32")
                    data, rounded = state["master"], data
                decay = float(self.weight_decay)
                apply = functools.partial(arithmetic.apply, decay=decay, rounded=rounded)
                self._update(apply, data, parameter.grad, state)

    def _update(self, apply, data, gradient, state):
        """Change `data` in place by `apply(rule, changed, read, numbers)`.

        state: this parameter's dictionary of arrays, empty at first.
        """
        raise NotImplementedError

    def state_dict(self):
        """{"kind": class name, "options": {name: number}, "state": {"index.name": a copy of the array}}."""
        return {
            "kind": type(self).__name__,
            "options": {name: getattr(self, name) for name in self._options},
            "state": {
                f"{index}.{name}": np.array(arithmetic.to_host(array))
                for index, arrays in enumerate(self._state)
                for name, array in arrays.items()
            },
        }

    def load_state_dict(self, state):
        """Continue from what `state_dict` returned; ValueError when it does not fit: nothing changes then."""
        name = type(self).__name__
        if state.get("kind") != name:
            raise ValueError(f"{name}.load_state_dict: the state is of {state.get('kind')} (need {name})")
        if set(state["options"]) != set(self._options):
            raise ValueError(
                f"{name}.load_state_dict: the state has options {sorted(state['options'])} "
                f"(need {sorted(self._options)})"
            )
        arrays = [{} for _ in self.params]
        for key, array in state["state"].items():
            index, _, item = key.partition(".")
            if not index.isdigit() or int(index) >= len(self.params):
                raise ValueError(
                    f"{name}.load_state_dict: {key!r} belongs to no parameter (there are {len(self.params)})"
                )
            data, array = self.params[int(index)].data, np.asarray(array)
            if item not in self.arrays and not (item == "master" and arithmetic.is_short(data)):
                raise ValueError(
                    f"{name}.load_state_dict: {key!r} is no array of {name} (need {self.arrays})"
                )
            shape = () if item == "step" else tuple(data.shape)
            if array.shape != shape or array.dtype.kind not in "fiu":
                raise ValueError(
                    f"{name}.load_state_dict: {key!r} has shape {array.shape} and dtype {array.dtype} "
                    f"(need shape {shape}, real numbers)"
                )
            if item == "step":
                arrays[int(index)][item] = np.array(array, np.int64)
            else:
                arrays[int(index)][item] = arithmetic.like(data, np.array(array, arithmetic.computed(data)))
        for option, value in state["options"].items():
            setattr(self, option, tuple(value) if isinstance(value, (list, tuple)) else value)
        self._state = arrays

    def __repr__(self):
        return (
            f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in self._options)})"
        )


def _descend(data, gradient, rate):
    return (data - rate * gradient,)


def _descend_heavily(data, velocity, gradient, rate, momentum):
    velocity = velocity * momentum + gradient
    return data - rate * velocity, velocity


def _descend_ahead(data, velocity, gradient, rate, momentum):
    velocity = velocity * momentum + gradient
    return data - rate * (gradient + momentum * velocity), velocity


class SGD(Optimizer):
    """Gradient descent: data -= lr g.

    With momentum, v = momentum v + g (the first v is g) in place of g; with Nesterov's, g + momentum v.
    Source: Nesterov (1983) and Sutskever et al. (2013), in PyTorch's form.
    """

    arrays = ("momentum",)

    def __init__(self, params, lr, momentum=0, nesterov=False, weight_decay=0):
        if nesterov and not momentum > 0:
            raise ValueError(f"SGD: momentum is {momentum} with nesterov (need > 0)")
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def _update(self, apply, data, gradient, state):
        if not self.momentum:
            apply(_descend, [data], [gradient], [self.lr])
            return
        velocity = _slot(state, "momentum", data)  # of 0: the first velocity is the gradient
        rule = _descend_ahead if self.nesterov else _descend_heavily
        apply(rule, [data, velocity], [gradient], [self.lr, self.momentum])


def _adagrad(data, total, gradient, rate, eps):
    total = total + gradient * gradient
    return data - rate * gradient / (sqrt(total) + eps), total


class Adagrad(Optimizer):
    """s += g^2; data -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    s starts at initial_accumulator_value; t counts the steps from 1.

    Source: Duchi, Hazan, Singer (2011).
    """

    arrays = ("sum", "step")

    def __init__(self, params, lr=0.01, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10):
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    def _update(self, apply, data, gradient, state):
        total = _slot(state, "sum", data, self.initial_accumulator_value)
        step = _count_step(state)
        rate = float(self.lr) / (1 + (step - 1) * self.lr_decay)
        apply(_adagrad, [data, total], [gradient], [rate, self.eps])


def _adadelta(data, square, update, gradient, rate, rho, rest, eps):
    square = square * rho + rest * (gradient * gradient)
    delta = gradient * sqrt(update + eps) / sqrt(square + eps)
    return data - rate * delta, square, update * rho + rest * (delta * delta)


class Adadelta(Optimizer):
    """s = rho s + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(s + eps); data -= lr d;
    u = rho u + (1 - rho) d^2.

    Source: Zeiler (2012).
    """

    arrays = ("square", "update")

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0):
        _below_one("Adadelta", "rho", rho, inclusive=True)
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def _update(self, apply, data, gradient, state):
        square, update = _slot(state, "square", data), _slot(state, "update", data)
        numbers = self.lr, self.rho, 1 - self.rho, self.eps
        apply(_adadelta, [data, square, update], [gradient], numbers)


def _rmsprop(data, square, gradient, rate, alpha, rest, eps):
    square = square * alpha + rest * (gradient * gradient)
    return data - rate * (gradient / (sqrt(square) + eps)), square


def _rmsprop_centered(data, square, mean, gradient, rate, alpha, rest, eps):
    square = square * alpha + rest * (gradient * gradient)
    mean = mean * alpha + rest * gradient
    return data - rate * (gradient / (sqrt(square - mean * mean) + eps)), square, mean


def _rmsprop_heavily(data, square, velocity, gradient, rate, alpha, rest, eps, momentum):
    square = square * alpha + rest * (gradient * gradient)
    velocity = velocity * momentum + gradient / (sqrt(square) + eps)
    return data - rate * velocity, square, velocity


def _rmsprop_centered_heavily(data, square, mean, velocity, gradient, rate, alpha, rest, eps, momentum):
    square = square * alpha + rest * (gradient * gradient)
    mean = mean * alpha + rest * gradient
    velocity = velocity * momentum + gradient / (sqrt(square - mean * mean) + eps)
    return data - rate * velocity, square, mean, velocity


class RMSprop(Optimizer):
    """s = alpha s + (1 - alpha) g^2; data -= lr g / (sqrt(s) + eps).

    With momentum, b = momentum b + g / (sqrt(s) + eps) and data -= lr b. `centered` subtracts from s the
    square of the running mean of g. Source: Hinton's lecture (2012); centered: Graves (2013).
    """

    arrays = ("square", "mean", "momentum")

    def __init__(self, params, lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False):
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def _update(self, apply, data, gradient, state):
        changed, numbers = (
            [data, _slot(state, "square", data)],
            [self.lr, self.alpha, 1 - self.alpha, self.eps],
        )
        if self.centered:
            changed.append(_slot(state, "mean", data))
        if self.momentum:
            changed.append(_slot(state, "momentum", data))
            numbers.append(self.momentum)
        rule = RMSPROP[bool(self.centered), bool(self.momentum)]
        apply(rule, changed, [gradient], numbers)


# (centered, with momentum) -> rule
RMSPROP = {
    (False, False): _rmsprop,
    (True, False): _rmsprop_centered,
    (False, True): _rmsprop_heavily,
    (True, True): _rmsprop_centered_heavily,
}


def _adam(data, mean, square, gradient, rate, beta1, rest1, beta2, rest2, growth, eps):
    mean = mean * beta1 + rest1 * gradient
    square = square * beta2 + rest2 * (gradient * gradient)
    return data - rate * mean / (sqrt(square) / growth + eps), mean, square


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; data -= lr m' / (sqrt(v') + eps).

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t) undo the start from 0; t counts the steps from 1.

    Source: Kingma and Ba (2014).
    """

    arrays = ("mean", "square", "step")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        for beta in betas:
            _below_one("Adam", "a beta", beta)
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def _update(self, apply, data, gradient, state):
        mean, square = _slot(state, "mean", data), _slot(state, "square", data)
        step, (beta1, beta2) = _count_step(state), self.betas
        rate, growth = float(self.lr) / (1 - beta1**step), (1 - beta2**step) ** 0.5
        numbers = rate, beta1, 1 - beta1, beta2, 1 - beta2, growth, self.eps
        apply(_adam, [data, mean, square], [gradient], numbers)


def _slot(state, name, data, value=0):
    """The array `name` of a parameter's state, like `data`; created full of `value`."""
    if name not in state:
        state[name] = arithmetic.full_like(data, value)
    return state[name]


def _count_step(state):
    """The number of this step, from 1, which `state` counts."""
    step = int(state.get("step", 0)) + 1
    state["step"] = np.array(step, np.int64)
    return step


def _below_one(name, option, value, inclusive=False):
    if not (0 <= value < 1 or inclusive and value == 1):
        raise ValueError(f"{name}: {option} is {value} (need 0 <= {option} {'<=' if inclusive else '<'} 1)")
