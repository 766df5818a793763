"""Optimisers: SGD, Adagrad, Adadelta, RMSprop, Adam, with the equations and defaults of `torch.optim`.

`step()` changes every parameter's `.data` in place from its `.grad`; one whose `.grad` is None is left alone.
`weight_decay` adds weight_decay * data to the gradient (L2 regularisation). Options are attributes
(`optimizer.lr`) and may be changed between steps. Everything is computed in the parameter's dtype, element by
element.
"""

import numpy as np

from .nn.module import Parameter


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
                gradient = parameter.grad
                if self.weight_decay:
                    gradient = gradient + self.weight_decay * parameter.data
                self._update(parameter.data, gradient, state)

    def _update(self, data, gradient, state):
        """Change `data` in place; `state` is this parameter's dictionary of arrays, empty at first."""
        raise NotImplementedError

    def state_dict(self):
        """{"kind": class name, "options": {name: number}, "state": {"index.name": a copy of the array}}."""
        return {
            "kind": type(self).__name__,
            "options": {name: getattr(self, name) for name in self._options},
            "state": {
                f"{index}.{name}": np.array(array)
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
            if item not in self.arrays:
                raise ValueError(
                    f"{name}.load_state_dict: {key!r} is no array of {name} (need {self.arrays})"
                )
            data, array = self.params[int(index)].data, np.asarray(array)
            shape = () if item == "step" else data.shape
            if array.shape != shape or array.dtype.kind not in "fiu":
                raise ValueError(
                    f"{name}.load_state_dict: {key!r} has shape {array.shape} and dtype {array.dtype} "
                    f"(need shape {shape}, real numbers)"
                )
            arrays[int(index)][item] = np.array(array, dtype=np.int64 if item == "step" else data.dtype)
        for option, value in state["options"].items():
            setattr(self, option, tuple(value) if isinstance(value, (list, tuple)) else value)
        self._state = arrays

    def __repr__(self):
        return (
            f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in self._options)})"
        )


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

    def _update(self, data, gradient, state):
        if self.momentum:
            if "momentum" not in state:
                state["momentum"] = np.array(gradient)
            else:
                state["momentum"] *= self.momentum
                state["momentum"] += gradient
            velocity = state["momentum"]
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        data -= float(self.lr) * gradient


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

    def _update(self, data, gradient, state):
        total = _slot(state, "sum", data, self.initial_accumulator_value)
        step = _count_step(state)
        total += gradient * gradient
        data -= float(self.lr) / (1 + (step - 1) * self.lr_decay) * gradient / (np.sqrt(total) + self.eps)


class Adadelta(Optimizer):
    """s = rho s + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(s + eps); data -= lr d;
    u = rho u + (1 - rho) d^2.

    Source: Zeiler (2012).
    """

    arrays = ("square", "update")

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0):
        _below_one("Adadelta", "rho", rho, inclusive=True)
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def _update(self, data, gradient, state):
        square, update = _slot(state, "square", data), _slot(state, "update", data)
        _average(square, gradient * gradient, self.rho)
        delta = gradient * np.sqrt(update + self.eps) / np.sqrt(square + self.eps)
        _average(update, delta * delta, self.rho)
        data -= float(self.lr) * delta


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

    def _update(self, data, gradient, state):
        square = _slot(state, "square", data)
        _average(square, gradient * gradient, self.alpha)
        if self.centered:
            mean = _slot(state, "mean", data)
            _average(mean, gradient, self.alpha)
            square = square - mean * mean
        delta = gradient / (np.sqrt(square) + self.eps)
        if self.momentum:
            velocity = _slot(state, "momentum", data)
            velocity *= self.momentum
            velocity += delta
            delta = velocity
        data -= float(self.lr) * delta


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

    def _update(self, data, gradient, state):
        mean, square = _slot(state, "mean", data), _slot(state, "square", data)
        step, (beta1, beta2) = _count_step(state), self.betas
        _average(mean, gradient, beta1)
        _average(square, gradient * gradient, beta2)
        root = np.sqrt(square)
        root /= (1 - beta2**step) ** 0.5
        root += self.eps
        data -= float(self.lr) / (1 - beta1**step) * mean / root


def _slot(state, name, data, value=0):
    """The array `name` of a parameter's state, like `data`; created full of `value`."""
    if name not in state:
        state[name] = np.full_like(data, value)
    return state[name]


def _count_step(state):
    """The number of this step, from 1, which `state` counts."""
    step = int(state.get("step", 0)) + 1
    state["step"] = np.array(step, np.int64)
    return step


def _average(average, value, decay):
    """average = decay * average + (1 - decay) * value, in place."""
    average *= decay
    average += (1 - decay) * value


def _below_one(name, option, value, inclusive=False):
    if not (0 <= value < 1 or inclusive and value == 1):
        raise ValueError(f"{name}: {option} is {value} (need 0 <= {option} {'<=' if inclusive else '<'} 1)")
