"""Plots latency over throughput as an SVG file."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from kerve.runtime.bench.measure import Result

__all__ = ["plot"]

WIDTH, HEIGHT, MARGIN = 720, 420, 64
LINES = (("p50", "#2f6fde"), ("p90", "#7a52c7"), ("p99", "#d9822b"))


def plot(title: str, results: Sequence[Result]) -> str:
    """Return the text of an SVG file: a point for each load, a line for each percentile."""
    points = sorted(results, key=lambda result: result.requests_per_second)
    max_x = max((result.requests_per_second for result in points), default=1) or 1
    max_y = max((result.p99 for result in points), default=1) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            MARGIN + x / max_x * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - y / max_y * (HEIGHT - 2 * MARGIN),
        )

    left, bottom = place(0, 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>',
        text(MARGIN, 32, title, size=16),
        text(WIDTH / 2, HEIGHT - 16, "requests per second", anchor="middle"),
        text(8, 48, "latency, ms"),
        f'<path d="M{left} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>',
    ]
    for part in (0.5, 1.0):
        x, y = place(part * max_x, part * max_y)
        parts += [
            text(x, bottom + 18, f"{part * max_x:,.0f}", anchor="middle"),
            text(left - 6, y + 4, f"{part * max_y:.3g}", anchor="end"),
        ]
    for position, (name, colour) in enumerate(LINES):
        places = [place(each.requests_per_second, getattr(each, name)) for each in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        parts.append(text(WIDTH - MARGIN + 8, MARGIN + 20 * position, name, fill=colour))
    return "\n".join([*parts, "</svg>\n"])


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, fill: str = "#333") -> str:
    """Return an SVG text element."""
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
