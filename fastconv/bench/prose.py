"""The words of the page (html.py): names of things, paragraphs, the glossary. HTML, in pieces."""

DIRECTIONS = {
    "forward": "forward",
    "backward_input": "gradient of the input",
    "backward_weight": "gradient of weight and bias",
    "backward": "all gradients",
    "loss": "loss and its gradient",
    "all": "all directions",
}
ALLOCATORS = {"warm": "memory kept", "as_called": "as called"}

TEXTS = {
    "what": """fastconv computes the layers of convolutional networks, forward and backward, on NumPy
arrays. This page compares it with other libraries that do the same work on the same machine in the same
minutes. Every number called a <b>ratio</b> is a peer's time divided by fastconv's: <b>2x means that
fastconv takes half the time</b>; below 1x the peer is faster. Every result was checked against float64
arithmetic before it was timed.""",
    "short": """The geometric mean of the ratios over all layers of a kind and, small, the worst single
layer. Networks: the convolutions of LeNet-5, AlexNet, ZFNet, VGG, GoogLeNet and ResNet. Odd sizes: shapes
that no famous network has. Rest the pointer on a cell to see which layer is the worst.""",
    "speedups": """One row a layer, one dot a peer, at the ratio of its time to fastconv's, on a logarithmic
axis. Rest the pointer on a dot for the times.""",
    "rooflines": """A layer is limited by arithmetic (the flat roof: multiply-adds per second, measured) or
by memory (the slope: bytes per second of copying, measured), depending on how many operations it does for
every byte that it must move. Operations are those of the plain sum, so that an algorithm that needs fewer
(Winograd) can stand above the roof; data that stays in a cache can stand above the slope. Dots: fastconv;
rings: PyTorch.""",
    "sweeps": "One size of a layer varies, the others stay. Both axes are logarithmic; lower is faster.",
    "numbers": """Best and median time of fastconv, its arithmetic rate and share of the machine's peak,
bytes moved per second at least, the largest error relative to the size of the results, scratch memory; then
the best time of every other implementation. A dash: it cannot compute this (rest the pointer on it for the
reason).""",
}

METHOD = """Every implementation runs in a process of its own, kept to as many cores as it may use threads,
with the same random inputs. They take turns in short bursts until each has had {seconds:g} s per layer; the
best and the median of all samples are kept, and results are freed between calls. Inputs are prepared as each
library likes them before the clock starts; weights are packed or transformed inside every timed call, except
where a library does it once when it loads a model (ONNX Runtime). Gradients of the weight include that of the
bias."""

GLOSSARY = {
    "memory kept": """The C library keeps freed memory instead of returning it to the system, for everybody:
kernels are compared, not page faults.""",
    "as called": "The C library's defaults, as a program has them that was not tuned.",
    "GFLOP/s": """Billions of additions and multiplications per second, counted for the plain sum whatever
algorithm ran.""",
    "of peak": "Share of the multiply-add rate that this processor reached in a loop on registers alone.",
    "error": """Largest difference from the float64 result, divided by the root mean square of the results.
float32 resolves about 1e-7.""",
}
