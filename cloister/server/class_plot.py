"""Plots precision, recall and F1 of each class on public records, the lowest F1 at the top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloister.evidence.spending_series import COLOURS

# Scores by class, then by name, as a task's meter reports them.
ClassScores = Mapping[str, Mapping[str, float]]
SHOWN = ("precision", "recall", "f1")
# Most classes in a picture: 40 rows of 0.32 inches are 13 inches high, about two screens.
MOST = 40
_ROW = 0.32
# Longest name beside a bar, in characters.
_NAME = 32


def lowest(classes: ClassScores) -> list[str]:
    """Returns the classes to draw: at most `MOST`, those of the lowest F1, ascending.

    Args:
        classes: Scores by class. Classes that no record has, by their `support`, are left out:
            their F1 of 0 says nothing.
    """
    scored = [
        name
        for name, values in classes.items()
        if set(SHOWN) <= set(values) and values.get("support", 1.0) > 0
    ]
    return sorted(scored, key=lambda name: (classes[name]["f1"], name))[:MOST]


def plot_classes(classes: ClassScores, title: str, path: Path) -> bool:
    """Draws three bars for each class into one PNG.

    Args:
        classes: Scores by class.
        title: The study's name.
        path: The PNG.

    Returns:
        Whether it was drawn; False: no class has these scores, as with a score or a conversation.
    """
    names = lowest(classes)
    if not names:
        return False
    from matplotlib.figure import Figure

    from cloister.evidence.fonts import fonts_for, literal

    shown = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]
    fonts = fonts_for([title, *shown])
    figure = Figure(figsize=(7.0, 1.2 + _ROW * len(names)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(SHOWN)
    for place, score in enumerate(SHOWN):
        rows = [row + (place - 1) * height for row in range(len(names))]
        widths = [classes[name][score] for name in names]
        axes.barh(rows, widths, height, label=score, color=COLOURS[place])
    axes.set_yticks(
        range(len(names)),
        [
            f"{literal(fonts, label)} ({classes[name]['support']:.0f})"
            if "support" in classes[name]
            else literal(fonts, label)
            for name, label in zip(names, shown, strict=True)
        ],
        fontfamily=fonts.families("".join(shown)),
    )
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="score (records in brackets)")
    more = f", the lowest {len(names)} of {len(classes)}" if len(names) < len(classes) else ""
    axes.set_title(literal(fonts, f"{title}: classes{more}"), fontfamily=fonts.families(title))
    figure.legend(loc="outside upper center", ncols=len(SHOWN), frameon=False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
    return True
