"""Accuracy over rounds as an SVG drawing without scripts or inline styles. `fl_server.pages` puts it into the page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from fl_server.web.facts import Point

WIDTH, HEIGHT = 600, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 52
MOST_POINTS = 240

SERIES = (("accuracy", "Accuracy"), ("balanced_accuracy", "Balanced accuracy"))


@dataclass(frozen=True)
class Plot:
    """The drawing's frame: rounds 0 to `rounds` from left to right, accuracy 0 to `top` upwards."""

    rounds: int
    top: float

    def x(self, number: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * number / max(1, self.rounds)

    def y(self, accuracy: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(accuracy / self.top, 1.0)


def draw(points: Sequence[Point], rounds: int, classes: int) -> str | None:
    """The drawing, or None where no round was evaluated.

    Args:
        rounds: of the run, the right end of the drawing.
        classes: for the line that guessing reaches.
    """
    seen = [point for point in points if point.accuracy is not None]
    if not seen:
        return None
    best = max(value for point in seen for name, _ in SERIES if (value := getattr(point, name)) is not None)
    plot = Plot(max(rounds, seen[-1].round), min(1.0, max(0.2, math.ceil(best * 10 + 0.2) / 10)))
    return "".join(_parts(plot, seen, 1 / classes))


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _parts(plot: Plot, seen: Sequence[Point], chance: float) -> Iterator[str]:
    last = seen[-1]
    said = f"Round {last.round}: accuracy {last.accuracy:.1%}. The table below holds all values."
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="plot-title plot-desc">'
    yield f'<title id="plot-title">Accuracy over rounds</title><desc id="plot-desc">{escape(said)}</desc>'
    step = 0.1 if plot.top <= 0.6 else 0.2
    for tick in range(round(plot.top / step) + 1):
        height = plot.y(tick * step)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{tick * step:.0%}</text>'
    for number in _ticks(plot.rounds):
        yield f'<text class="tick" x="{plot.x(number):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{number}</text>'
    yield f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">round</text>'
    if chance < plot.top:
        height = plot.y(chance)
        yield f'<line class="chance" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
        yield f'<text class="tick" x="{WIDTH - RIGHT}" y="{height - 5:.1f}" text-anchor="end">guessing</text>'
    for name, _ in reversed(SERIES):
        marks = [(plot.x(point.round), plot.y(getattr(point, name))) for point in thin(seen) if getattr(point, name) is not None]
        if marks:
            yield f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in marks)}"/>'
            yield f'<circle class="{name}" cx="{marks[-1][0]:.1f}" cy="{marks[-1][1]:.1f}" r="4"/>'
    yield "</svg>"


def _ticks(rounds: int) -> list[int]:
    rough = max(1, rounds / 8)
    size = 10 ** math.floor(math.log10(rough))
    step = next(int(size * factor) for factor in (1, 2, 5, 10) if size * factor >= rough)
    return list(range(0, rounds + 1, max(1, step)))
