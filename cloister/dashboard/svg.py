"""Draws small pictures as inline SVG: scales, axes and marks; the style sheet has the colours.

Lengths are in units of a picture about as wide as a telephone's screen, so that its text is legible
there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 400.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 12.0, 14.0, 34.0


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to positions.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Position of `low`.
        end: Position of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the position of a value on the axis."""
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)


def across(low: float, high: float) -> Scale:
    """Makes a horizontal scale, from left to right."""
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def upward(high: float) -> Scale:
    """Makes a vertical scale, from 0 at the bottom to the top."""
    return Scale(0.0, high, HEIGHT - BOTTOM, TOP)


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Returns round values from `low` to `high`, in at most `most` steps."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    step = max(1.0, step) if whole else step
    first = math.ceil(round(low / step, 9))
    found = [round(number * step, 12) for number in range(first, first + most + 2)]
    return [value for value in found if value <= high + step * 1e-9]


def tag(name: str, inner: object = None, **attributes: object) -> Markup:
    """Makes an element; every value is escaped. `_class` becomes `class`, `a_b` becomes `a-b`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.lstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
    )
    if inner is None:
        return Markup("<{}{}/>").format(Markup(name), written)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def text(x: float, y: float, words: str, _class: str = "", anchor: str = "start") -> Markup:
    """Returns an SVG text element at a position."""
    return tag("text", words, x=round(x, 2), y=round(y, 2), _class=_class, text_anchor=anchor)


def path(points: Iterable[tuple[float, float]], _class: str, *, steps: bool = False) -> Markup:
    """Draws a line through positions, or a step function."""
    drawn = ""
    for x, y in points:
        way = f"L{x:g} {y:g}" if not steps else f"H{x:g}V{y:g}"
        drawn += way if drawn else f"M{x:g} {y:g}"
    return tag("path", d=drawn or "M0 0", _class=_class)


def with_tooltip(mark: Markup, words: str) -> Markup:
    """Adds a tooltip to a mark."""
    return tag("g", Markup("{}{}").format(tag("title", words), mark))


def axes(x: Scale, y: Scale, x_ticks: Sequence[float], labels: Sequence[str], title: str) -> Markup:
    """Draws grid lines with the values of the vertical axis, and the horizontal axis with its name.

    Args:
        x: The horizontal scale.
        y: The vertical scale.
        x_ticks: The values on the horizontal axis.
        labels: Texts for the values on the vertical axis, as many as `ticks` gives.
        title: Title of the horizontal axis.
    """
    parts = []
    for value, words in zip(ticks(y.low, y.high), labels, strict=True):
        parts.append(path([(LEFT, y(value)), (WIDTH - RIGHT, y(value))], "grid"))
        parts.append(text(LEFT - 5, y(value) + 3.5, words, "tick", "end"))
    parts += [text(x(at), HEIGHT - BOTTOM + 14, f"{at:g}", "tick", "middle") for at in x_ticks]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, title, "axis", "middle"))
    return Markup("").join(parts)


def picture(
    parts: Iterable[Markup], says: str, _class: str = "plot", height: float = HEIGHT
) -> Markup:
    """Returns a whole SVG picture with its description.

    Args:
        parts: Its marks.
        says: A description of what it shows, for readers who cannot see it.
        _class: Its class in the style sheet.
        height: Its height in the picture's units.
    """
    box = f"0 0 {WIDTH:g} {height:g}"
    inner = Markup("").join(parts)
    return tag("svg", inner, viewBox=box, role="img", aria_label=says, _class=_class)
