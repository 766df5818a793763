"""Plots as SVG text: logarithmic axes, points, lines, charts of dots in rows. Knows nothing of benchmarks.

Colours are CSS variables (--c0, --c1, ...; --ink, --faint, --grid) that the page defines, for light and dark.
"""

import math
from html import escape

COLOURS = 10


def colour(number):
    """The CSS value of series `number`."""
    return f"var(--c{number % COLOURS})"


def ticks(low, high):
    """Round numbers from `low` to `high` for a logarithmic axis: 1, 2, 5 times powers of ten, or fewer."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 300 else (1,)
    every = max(1, (last - first) // 6)
    marks = (step * 10.0**power for power in range(first, last + 1, every) for step in steps)
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


def number(value):
    """A tick's text: 0.5, 2, 100, 2k, 10M, 1024."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and len(f"{value / size:g}") < 4:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


class Plot:
    """A rectangle with two logarithmic axes; `width` and `height` are pixels, with margins for the labels."""

    LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 46

    def __init__(self, x_range, y_range, x_label, y_label, title, x_marks=(), width=640, height=380):
        self.width, self.height, self.title, self.parts = width, height, title, []
        self.x_range, self.y_range = x_range, y_range
        right, bottom = width - self.RIGHT, height - self.BOTTOM
        for mark in x_marks or ticks(*x_range):
            x = self.x(mark)
            self._line(x, self.TOP, x, bottom, "var(--grid)")
            self._text(x, bottom + 16, number(mark), "middle")
        for mark in ticks(*y_range):
            y = self.y(mark)
            self._line(self.LEFT, y, right, y, "var(--grid)")
            self._text(self.LEFT - 6, y + 4, number(mark), "end")
        self._text((self.LEFT + right) / 2, height - 8, x_label, "middle", "axis")
        middle = (self.TOP + bottom) / 2
        self.parts.append(
            f'<text class="axis" text-anchor="middle" transform="translate(14 {middle:.1f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )

    def x(self, value):
        return self.LEFT + _share(value, self.x_range) * (self.width - self.LEFT - self.RIGHT)

    def y(self, value):
        return (
            self.height - self.BOTTOM - _share(value, self.y_range) * (self.height - self.TOP - self.BOTTOM)
        )

    def _line(self, x1, y1, x2, y2, stroke, more=""):
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{more}/>'
        )

    def _text(self, x, y, text, anchor, kind="tick"):
        self.parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def point(self, x, y, series, tip):
        """A dot; `tip` shows when the pointer rests on it."""
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4" fill="{colour(series)}"'
        self.parts.append(f"<circle {place}><title>{escape(tip)}</title></circle>")

    def line(self, points, series):
        """A line through (x, y) points."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{places}" fill="none" stroke="{colour(series)}" stroke-width="2"/>'
        )

    def edge(self, points, label, dashed=False):
        """A limit: a line in ink with a label near its end."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{places}" fill="none" stroke="var(--ink)" stroke-width="1.4"{dash}/>'
        )
        x, y = points[-1]
        self._text(self.x(x) - 4, self.y(y) + (16 if dashed else -7), label, "end", "limit")

    def mark(self, x, label):
        """A dashed vertical line at x, named at its top."""
        at, bottom = self.x(x), self.height - self.BOTTOM
        self._line(at, self.TOP, at, bottom, "var(--ink)", ' stroke-dasharray="3 3"')
        self._text(at + 4, self.TOP + 10, label, "start", "limit")

    def svg(self):
        return _svg(self.width, self.height, self.title, self.parts)


def dots(rows, x_label, title, width=700, sides=("peer is faster", "fastconv is faster")):
    """Rows of dots over one logarithmic axis with a line at 1.

    rows: (label, {series number: (value, tip)}) from top to bottom; sides: what left and right of 1 mean.
    """
    values = [value for _, marks in rows for value, _ in marks.values()]
    low, high = min([*values, 0.8]) / 1.1, max([*values, 1.25]) * 1.1
    left, right, top, step = 10 + 7 * max(len(label) for label, _ in rows), 20, 24, 17
    height = top + step * len(rows) + 40

    def x(value):
        return left + _share(value, (low, high)) * (width - left - right)

    bottom, parts = top + step * len(rows), []
    for mark in ticks(low, high):
        stroke = "var(--ink)" if mark == 1 else "var(--grid)"
        parts.append(
            f'<line x1="{x(mark):.1f}" y1="{top - 6}" x2="{x(mark):.1f}" y2="{bottom}" stroke="{stroke}"/>'
        )
        parts.append(
            f'<text class="tick" x="{x(mark):.1f}" y="{bottom + 16}" text-anchor="middle">{mark:g}x</text>'
        )
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2:.1f}" y="{height - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    parts.append(f'<text class="tick" x="{x(1) - 6:.1f}" y="{top - 10}" text-anchor="end">{sides[0]}</text>')
    parts.append(f'<text class="tick" x="{x(1) + 6:.1f}" y="{top - 10}">{sides[1]}</text>')
    for index, (label, marks) in enumerate(rows):
        y = top + step * index + step / 2
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        if marks:
            ends = [x(value) for value, _ in marks.values()]
            place = f'x1="{min(ends):.1f}" y1="{y:.1f}" x2="{max(ends):.1f}" y2="{y:.1f}"'
            parts.append(f'<line {place} stroke="var(--faint)"/>')
        for series, (value, tip) in marks.items():
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4.5" fill="{colour(series)}">'
                f"<title>{escape(tip)}</title></circle>"
            )
    return _svg(width, height, title, parts)


def shares(rows, x_label, title, width=700):
    """Rows of bars of one length, divided into parts, with the sum at the right.

    rows: (label, [(value, tip) of series 0, 1, ...]) from top to bottom.
    """
    left, right, top, step = 10 + 7 * max(len(label) for label, _ in rows), 78, 8, 19
    bottom, parts = top + step * len(rows), []
    for index, (label, values) in enumerate(rows):
        y, x, total = top + step * index, left, sum(value for value, _ in values)
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
        )
        for series, (value, tip) in enumerate(values):
            wide = (width - left - right) * value / total
            place = f'x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{step - 5}" fill="{colour(series)}"'
            parts.append(f"<rect {place}><title>{escape(tip)}</title></rect>")
            x += wide
        parts.append(f'<text class="tick" x="{x + 6:.1f}" y="{y + 12}">{total:.4g} ms</text>')
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2:.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return _svg(width, bottom + 26, title, parts)


def _share(value, ends):
    low, high = ends
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _svg(width, height, title, parts):
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
