"""Curves, bars and matrices as SVG and HTML; text arguments are escaped."""

from collections.abc import Sequence
from html import escape

import numpy as np

from kerve.cli.html import table
from kerve.runtime.datatypes import Array

__all__ = ["bars", "curves", "figure", "matrix", "number", "scrolled"]

WIDTH, HEIGHT, LEFT, BOTTOM = 340, 250, 42, 34
COLOURS = 10
#: Maximum points of a curve: more are not visible.
POINTS = 200


def figure(title: str, drawing: str, note: str = "") -> str:
    """Return a drawing with its title and a note."""
    said = f"<p class=note>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}{said}</figure>"


def curves(
    lines: Sequence[tuple[str, Array, Array]], x: str, y: str, *, diagonal: bool = False, dots: bool = False
) -> str:
    """Return curves in the unit square, with the names of the axes and, if there are several, the curves."""
    drawn = [axes(x, y)]
    if diagonal:
        drawn.append(f'<path class=guide d="M{across(0)} {up(0)}L{across(1)} {up(1)}"/>')
    for position, (name, xs, ys) in enumerate(lines):
        chosen = np.unique(np.linspace(0, len(xs) - 1, POINTS).astype(int)) if len(xs) else np.array([], int)
        points = [f"{across(xs[place])} {up(ys[place])}" for place in chosen]
        drawn.append(
            f'<path class="curve c{position % COLOURS}" d="M{"L".join(points)}">'
            f"<title>{escape(name)}</title></path>"
        )
        if dots:
            drawn += [
                f'<circle class="c{position % COLOURS}" cx="{across(xs[place])}" cy="{up(ys[place])}" r="3"/>'
                for place in chosen
            ]
    keys = "".join(
        f'<span class="key c{position % COLOURS}">{escape(name)}</span>'
        for position, (name, _, _) in enumerate(lines)
    )
    legend = f"<div class=keys>{keys}</div>" if len(lines) > 1 else ""
    return svg("".join(drawn)) + legend


def bars(counts: Array, low: float, high: float, x: str) -> str:
    """Return a histogram over equal bins from `low` to `high`."""
    most, wide = max(1, int(counts.max(initial=0))), 1 / max(1, len(counts))
    drawn = [axes(x, "count", (number(low), number(high)), ("0", f"{most:,}"))]
    for position, count in enumerate(counts.tolist()):
        if count:
            left, right, top = across(position * wide), across((position + 1) * wide), up(count / most)
            drawn.append(
                f'<rect class=c0 x="{left}" y="{top}" width="{right - left:.2f}" '
                f'height="{up(0) - top:.2f}"><title>{count:,}</title></rect>'
            )
    return svg("".join(drawn))


def matrix(counts: Array, names: Sequence[str]) -> str:
    """Return a confusion matrix: labels are rows, predictions are columns, shaded by share of the label."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = []
    for label, name in enumerate(names):
        cells = "".join(
            f"<td class={'right' if label == chosen else 'wrong'} style=--share:{shares[label, chosen]:.3f}>"
            f"{counts[label, chosen]:,}</td>"
            for chosen in range(len(names))
        )
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    return f"<div class=scroll><table class=matrix><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def scrolled(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls if it is too large."""
    return f"<div class=scroll>{table(columns, rows)}</div>"


def number(value: float) -> str:
    """Format a number with four significant digits."""
    return f"{value:.4g}"


def svg(drawn: str) -> str:
    """Return an SVG element of the default size."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{drawn}</svg>'


def axes(x: str, y: str, x_ends: tuple[str, str] = ("0", "1"), y_ends: tuple[str, str] = ("0", "1")) -> str:
    """Return the frame, the limits of both axes, and their names."""
    middle, floor = across(0.5), up(0)
    return (
        f'<path class=frame d="M{across(0)} {up(1)}V{floor}H{across(1)}"/>'
        f'<text x="{across(0)}" y="{floor + 14}" text-anchor="middle">{escape(x_ends[0])}</text>'
        f'<text x="{across(1)}" y="{floor + 14}" text-anchor="end">{escape(x_ends[1])}</text>'
        f'<text x="{middle}" y="{floor + 28}" text-anchor="middle">{escape(x)}</text>'
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">{escape(y_ends[0])}</text>'
        f'<text x="{LEFT - 6}" y="{up(1) + 10}" text-anchor="end">{escape(y_ends[1])}</text>'
        f'<text transform="translate(12 {up(0.5)}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )


def across(share: float) -> float:
    """Return the x coordinate of a share of the horizontal axis."""
    return round(LEFT + float(share) * (WIDTH - LEFT - 10), 2)


def up(share: float) -> float:
    """Return the y coordinate of a share of the vertical axis."""
    return round(HEIGHT - BOTTOM - float(share) * (HEIGHT - BOTTOM - 10), 2)
