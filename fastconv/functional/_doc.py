"""Docstrings shared by the 1-d, 2-d and 3-d forms of one operation. Nothing else lives here."""

SPATIAL = {1: "W", 2: "H, W", 3: "D, H, W"}
KERNEL = {1: "S", 2: "R, S", 3: "T, R, S"}
OUT = {1: "Q", 2: "P, Q", 3: "O, P, Q"}


def doc(text, n):
    """A decorator: gives the function `text` with n and the names of its axes put in."""
    words = {"{n}": str(n), "{spatial}": SPATIAL[n], "{kernel}": KERNEL[n], "{out}": OUT[n]}

    def decorate(function):
        filled = text
        for word, value in words.items():
            filled = filled.replace(word, value)
        function.__doc__ = filled
        return function

    return decorate
