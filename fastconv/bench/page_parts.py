"""Small pieces that all parts of the page are made of."""

from html import escape

from . import svg


def mark(number, text):
    """A coloured dot and what it stands for."""
    return f'<span><i style="background:{svg.colour(number)}"></i>{escape(text)}</span>'


def legend(texts):
    """Series in the order of their colours."""
    return f'<p class="legend">{"".join(mark(number, text) for number, text in enumerate(texts))}</p>'


def title_of(report, name):
    """An implementation as readers know it."""
    if name == "fastest":
        return "fastest of PyTorch and ONNX Runtime"
    return report["implementations"][name]["title"]


def threads_text(count):
    return f"{count} thread{'s' * (count > 1)}"


def milliseconds(seconds):
    return f"{1e3 * seconds:.4g} ms"


def table_of(heads, rows, kind=""):
    """A table from header texts and the cells of its rows (HTML); kind: a class of the style sheet."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'


def spread_cell(spread):
    """Geometric mean and worst case, coloured by the mean; the pointer tells which problem is the worst."""
    if spread is None:
        return "<td>-</td>"
    kind = "good" if spread["mean"] >= 1 else "bad"
    tip = escape(f"worst of {spread['count']}: {spread['worst_label']}")
    behind = ' class="behind"' if spread["worst"] < 1 else ""
    numbers = f"<b>{ratio(spread['mean'])}</b> <small{behind}>{ratio(spread['worst'])}</small>"
    return f'<td class="{kind}" title="{tip}">{numbers}</td>'


def ratio(value):
    """2.05x, 0.012x, 341x."""
    return f"{value:.2f}x" if 0.1 <= value < 100 else f"{value:.2g}x" if value < 0.1 else f"{value:.0f}x"


def time_cell(result, told):
    """The best time with `told` for who points at it, or why there is none."""
    if "best" in result:
        return f'<span title="{escape(told)}">{milliseconds(result["best"])}</span>'
    for word in ("wrong", "failed"):
        if word in result:
            return f'<span title="{escape(result[word])}">{word}</span>'
    return f'<span title="{escape(result.get("refused", ""))}">-</span>'
