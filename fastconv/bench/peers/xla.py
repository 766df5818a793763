"""JAX: functions compiled by XLA for the CPU, with as many threads as cores that the process may use."""

from .base import Implementation, Refused


class Jax(Implementation):
    name, title = "jax", "JAX"
    packages = ("jax", "jaxlib")

    def setup(self, threads):
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        self.jax = jax

    def prepare(self, problem, direction, arrays):
        arrays = {k: None if a is None else self.jax.numpy.asarray(a) for k, a in arrays.items()}
        return super().prepare(problem, direction, arrays)

    def results(self, result):
        import numpy as np

        return [np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else [result])]

    def _call(self, function, *arguments):
        """Compiled for these arguments, run to the end."""
        compiled, wait = self.jax.jit(function).lower(*arguments).compile(), self.jax.block_until_ready
        return lambda: wait(compiled(*arguments))

    def _gradient(self, function, dy, *arguments):
        """The gradients of a function of `arguments` at them, compiled."""
        return self._call(lambda dy, *at: self.jax.vjp(function, *at)[1](dy), dy, *arguments)

    def conv(self, problem, direction, x, weight, bias, dy):
        jax, options = self.jax, problem.options
        if problem.transposed or not problem.problem.batched:
            raise Refused("ordinary convolution of a batch only")
        if options.get("padding_mode", "zeros") != "zeros":
            raise Refused("pads with zeros only")
        channelwise = (-1, *(1,) * problem.ndim)

        def correlate(x, weight):
            return jax.lax.conv_general_dilated(
                x,
                weight,
                options["stride"],
                options["padding"],
                rhs_dilation=options["dilation"],
                feature_group_count=options["groups"],
            )

        if direction == "forward":
            name = problem.problem.activation
            activation = {None: lambda y: y, "tanh": jax.numpy.tanh}.get(name) or getattr(jax.nn, name)
            if bias is None:
                return self._call(lambda x, weight: activation(correlate(x, weight)), x, weight)
            biased = lambda x, weight, bias: activation(correlate(x, weight) + bias.reshape(channelwise))  # noqa: E731
            return self._call(biased, x, weight, bias)
        if direction == "backward_input":
            return self._call(
                lambda dy, x, weight: jax.vjp(lambda x: correlate(x, weight), x)[1](dy), dy, x, weight
            )
        axes = tuple(axis for axis in range(dy.ndim) if axis != 1)

        def weight_gradients(dy, x, weight):
            return (*jax.vjp(lambda weight: correlate(x, weight), weight)[1](dy), dy.sum(axes))

        return self._call(weight_gradients, dy, x, weight)

    def pool(self, problem, direction, x, dy):
        if problem.op != "max_pool2d" or problem.options["ceil_mode"]:
            return None
        jax, o = self.jax, problem.options
        lead = (1,) * (x.ndim - 2)

        def pool(x):
            return jax.lax.reduce_window(
                x,
                -jax.numpy.inf,
                jax.lax.max,
                (*lead, *o["kernel_size"]),
                (*lead, *o["stride"]),
                (*((0, 0),) * len(lead), *o["padding"]),
                window_dilation=(*lead, *o["dilation"]),
            )

        return self._call(pool, x) if direction == "forward" else self._gradient(pool, dy, x)

    def linear(self, problem, direction, x, weight, bias, dy):
        def linear(x, weight, bias):
            return x @ weight.T + bias

        return (
            self._call(linear, x, weight, bias)
            if direction == "forward"
            else self._gradient(linear, dy, x, weight, bias)
        )

    def activation(self, problem, direction, x, dy):
        function = self.jax.numpy.tanh if problem.op == "tanh" else getattr(self.jax.nn, problem.op)
        return self._call(function, x) if direction == "forward" else self._gradient(function, dy, x)
