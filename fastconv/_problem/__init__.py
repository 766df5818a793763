"""Problems: the arguments of convolution and pooling, parsed once and valid from here on. The only parser.

A problem is frozen, hashable and complete: backends read it and never look at a user's option again. Axes are
always three, D H W; 1-d and 2-d problems have unit leading axes (size 1, kernel 1, stride 1, dilation 1, no
padding). Every ValueError and TypeError about shapes and options is raised here, with operation, value, rule.

`of...` functions take the user's arguments, bring the options into one hashable form and look the problem up
in a cache keyed by dtypes, shapes and options, so that a repeated call costs one dictionary lookup.
"""

from .conv import ACTIVATIONS, PADDING_MODES, PADDING_WORDS, ConvProblem
from .geometry import dtype_word
from .pool import PoolProblem

__all__ = ["ACTIVATIONS", "PADDING_MODES", "PADDING_WORDS", "ConvProblem", "PoolProblem", "dtype_word"]
