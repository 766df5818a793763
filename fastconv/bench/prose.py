"""The words of the page (html.py): names of things, paragraphs, the glossary. HTML, in pieces."""

DIRECTIONS = {
    "forward": "forward",
    "backward_input": "gradient of the input",
    "backward_weight": "gradient of weight and bias",
    "backward": "all gradients",
    "loss": "loss and its gradient",
    "step": "step of training",
    "all": "all directions",
}
ALLOCATORS = {"warm": "memory kept", "as_called": "as called"}
SECTIONS = {
    "networks": "Convolutions of networks",
    "odd sizes": "Convolutions of odd sizes",
    "other operations": "Pools, activations, losses, norms, linear",
    "small sizes": "Small sizes",
    "whole networks": "Whole networks",
    "given": "Problems given by hand",
}
AXES = {
    "batch": "samples in the batch",
    "channels": "channels, in and out",
    "size": "height and width of the image",
    "kernel": "height and width of the kernel",
    "threads": "threads",
}

CROSSINGS = {  # what varies, and the axis
    "batch": ("The second convolution of LeNet-5", "samples in the batch"),
    "size": ("One image through a 3x3 layer of 16 channels", "height and width of the image"),
    "network": ("Training LeNet-5", "samples in the batch"),
}

TEXTS = {
    "device": """A GPU was measured as well: <a href="#gpu">processor or GPU?</a>""",
    "what": """fastconv computes the layers of convolutional networks, forward and backward, on NumPy
arrays. This page compares it with other libraries that do the same work on the same machine in the same
minutes. Every number called a <b>ratio</b> is a peer's time divided by fastconv's: <b>2x means that
fastconv takes half the time</b>; below 1x the peer is faster. Every result was checked against float64
arithmetic before it was timed.""",
    "short": """Geometric mean of the ratios over all problems of a kind and, small, the worst single one
(rest the pointer on a cell to see which). The first rows are the convolutions of LeNet-5, AlexNet, ZFNet,
VGG, GoogLeNet and ResNet; odd sizes are shapes that no famous network has. The fastest peer is, for each
problem, the quickest of PyTorch with either layout and ONNX Runtime. At the limit is what the column before
it would be if fastconv computed every problem in the least time this processor allows: doing only the
arithmetic that none of its algorithms can do without, at the rate it reaches on registers alone, or only
moving the arrays, at the rate of copying. Memory kept and as called are two ways of measuring, see the
end.""",
    "slowest": """The smallest ratios to the fastest peer: PyTorch with either layout, or ONNX Runtime. It
is ahead of fastconv in <b>{behind} of {every}</b> measurements. At the limit: the ratio that there would be
if fastconv did only the arithmetic that it cannot do without, or only moved the arrays.""",
    "speedups": """One row a problem, one dot a peer, at the ratio of its time to fastconv's, on a
logarithmic axis: right of the line fastconv is faster. Rest the pointer on a dot for the times. More
charts fold out below.""",
    "rooflines": """A layer is limited by arithmetic (the flat roof: multiply-adds per second, measured)
or by memory (the slope: bytes per second of copying, measured), depending on how many operations it does
for every byte that it must move. Higher is faster. Operations are those of the plain sum, so that an
algorithm that needs fewer (Winograd) can stand above the roof; data that stays in a cache can stand above
the slope.""",
    "sweeps": "One size of a layer varies, the others stay. Both axes are logarithmic; lower is faster.",
    "numbers": """Best and median time of fastconv, its arithmetic rate and share of the machine's peak,
its share of the limit (the least possible time over its own; the pointer tells it and what takes it),
bytes moved per second at least, the largest error relative to the size of the results, scratch memory,
growth of the process's memory at the first call (results included); then the best time of every other
implementation, its median, error and memory where the pointer rests. A dash: it cannot compute this (the
pointer tells why).""",
}

METHOD = """Every implementation runs in a process of its own, kept to as many cores as it may use threads,
with the same random inputs. They take turns in short bursts until each has had {seconds:g} s per layer; the
best and the median of all samples are kept, and results are freed between calls. Inputs are prepared as each
library likes them before the clock starts; weights are packed or transformed inside every timed call, except
where a library does it once when it loads a model (ONNX Runtime). Gradients of the weight include that of the
bias."""

GLOSSARY = {
    "memory kept": """The C library keeps freed memory instead of returning it to the system, for
everybody: kernels are compared, not page faults.""",
    "as called": "The C library's defaults, as a program has them that was not tuned.",
    "GFLOP/s": """Billions of additions and multiplications per second, counted for the plain sum whatever
algorithm ran.""",
    "of peak": "Share of the multiply-add rate that this processor reached in a loop on registers alone.",
    "limit": """The least time that fastconv's algorithms could take on this machine: the longest of the
fewest multiply-adds that any of them needs (the plain sum or, in float32, Winograd's algorithm with tiles of
6 or 8 points, whose products count at the rate of the register tile alone) at the peak rate, the bytes of
all arrays at the measured rate of copying as many, and the shortest call. It is a bound of the algorithms that are known here and whose rounding errors
are admitted, not of all that may be found; no program reaches it quite, since numbers must also be fetched
and brought into order.""",
    "names": """<code>conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32</code> is a 2-d convolution of 8 samples
with 64 channels of 56 x 56 pixels by 64 filters of 3 x 3 taps, stride 1, padding 1, dilation 1, one
group, in float32. The pointer shows it behind the short names of layers.""",
    "error": """Largest difference from the float64 result, divided by the root mean square of the
results. float32 resolves about 1e-7.""",
}

DEVICE_TEXTS = {
    "what": """The same layers, and whole networks, by fastconv on this GPU and on the processor of this
machine. What the GPU gains depends on where the arrays are: if they stay there from layer to layer, as in
training, only the computation counts; if every call brings its arrays from the processor's memory and
takes the results back, copying counts as well, and is often most of it.""",
    "simulator": """There was no GPU: a simulator played one, thread by thread, to show that everything
runs. Its times mean nothing.""",
    "short": """Geometric mean of the gains over all problems of a kind and, small, the worst single one
(rest the pointer on a cell to see which). 2x means that the GPU takes half the processor's time; below 1x
the processor is faster.""",
    "crossings": """Small problems are over on the processor before a GPU has begun. One size grows, the
others stay; both axes are logarithmic, lower is faster. The dashed lines are where the GPU's curves cross
the processor's for the last time, on the straight line between two measured sizes.""",
    "layers": """One row a problem, two dots: how many times faster the GPU is than the processor with all
threads that were measured, if arrays stay on the GPU, and if they come and go. Right of the line the GPU
is faster. Rest the pointer on a dot for the number.""",
    "where": """What a call takes when its arrays come from the processor: each measured alone.""",
    "peers": """cuDNN is NVIDIA's own library, here as PyTorch calls it, with the fastest of its
algorithms found by trial. Warm calls: arrays stay on the GPU, in the layout that is named. Compared is
what rounds alike: TF32, which keeps 10 bits of every factor, with TF32, and float32 with fastconv's
"fast" and "strict", which are accurate to float32 alike.""",
    "numbers": """Best times. Warm: arrays stay on the GPU, calls queued one after the other. With
transfers: from NumPy arrays to NumPy arrays. Then how the results compare: with the processor's, in units
of the last place, and of both with float64.""",
}

DEVICE_GLOSSARY = {
    "first call, cold": """The first call with a shape in a process that has computed others; and in a
process that finds nothing compiled, so that kernels are written, compiled and loaded first. They are
compiled once for a machine.""",
    "ulp, most": """How many floating-point numbers lie between a result of the GPU and the processor's,
at most. Where terms cancel to almost nothing this is large and means little.""",
    "ulp of size": """The largest difference in units of the last place of a number of the results'
typical (root mean square) size.""",
    "fast, strict, tf32": """Precisions of fastconv on the GPU: accurate to float32 by three products on
the tensor cores, a direct sum in float32, one product of factors rounded to 10 bits. The last is used
only on request.""",
}
