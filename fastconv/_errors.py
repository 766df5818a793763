"""The two kinds of failure for which Python has no exception of its own. Nothing else lives here."""

__all__ = ["DeviceError", "UnsupportedError"]


class UnsupportedError(NotImplementedError):
    """The arguments are valid, but the algorithm or backend that was asked for by name cannot compute them.

    Raised instead of quietly running something else; the message says why, e.g.
    ``conv2d: algorithm 'pointwise' needs a 1x1 kernel, got 3x3``.
    """


class DeviceError(RuntimeError):
    """A device is missing, or arrays of one call live on different devices. Nothing is copied silently."""
