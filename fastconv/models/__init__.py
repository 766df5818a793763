"""Networks of the literature: functions that return a layer."""

from .lenet import lenet5

__all__ = ["lenet5"]
