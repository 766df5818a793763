"""The simple kernels: one readable @cuda.jit kernel for every operation, forward and backward.

They are the device's last resort (whatever the fast kernels refuse runs here) and its oracle: what runs on
hardware can be compared with them there, and they are compared with the reference in the simulator.

How all of them are written:

- One thread computes whole elements of the result, each as a sum in a fixed order: no atomics on floats, no
  shared memory, no dependence on the launch. Threads stride over the result (`for i in range(cuda.grid(1),
  size, cuda.gridsize(1))`), so that any grid will do, a huge one on hardware, a few threads in the simulator.
- Long sums are split into parts by their length alone, and the parts are summed by a second pass (`reduce`).
- Everything is computed in the dtype of the data. numba promotes integers to float64 in mixed expressions, so
  that constants are made with `real = y.dtype.type`, and real arguments come in that type from `launch`.
- Indices are int64, the type that numba gives to sums of integers; `split` divides in 32 bits where it can.

Promises: the same inputs give the same bits on one device, whatever the strides; an element of y or dx
depends on the elements of its own defining sum alone, so that samples do not influence each other and what is
not finite stays where it belongs. Bits are not those of the CPU: the order of sums, fused multiply-adds and
the functions of libdevice differ. Subnormal numbers are kept.
"""
