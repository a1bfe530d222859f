"""The winner's recipe as a TOML file, with comments that say what chose it."""

from __future__ import annotations

from cloister.recipe import Recipe
from cloister.simulation.tuning.search import Search
from cloister.simulation.tuning.tuning_file import TriedSetting


def tuned_recipe(planned: Search, best: TriedSetting, tried: int, metric: str) -> str:
    """Returns the recipe with the winner's values: every field, and a comment at those searched.

    Args:
        planned: The search.
        best: The winner.
        tried: Number of settings that were scored.
        metric: The name of the score.

    Returns:
        TOML that reads back as the recipe with the winner's setting.
    """
    recipe = planned.with_setting(dict(best.setting))
    return _head(planned, best, tried, metric) + _commented(recipe, planned)


def data_words(planned: Search) -> str:
    """Returns what the search costs, in one sentence."""
    if planned.together is None:
        return (
            "Data: public (declared, or generated). The search costs no privacy; each trial adds "
            "the noise of its ε, which protects nobody here."
        )
    total = planned.together
    return (
        f"Data: private. All {planned.trials * planned.seeds} studies together: {total.short}, for "
        f"one {total.unit} added or removed (PLD), against {total.against}: promised, however "
        "early one of them stops. Their rounds are seen, so a study that follows adds its own ε."
    )


def score_words(planned: Search, best: TriedSetting, tried: int, metric: str) -> str:
    """Returns how the winner was chosen, in one sentence."""
    mean = f", mean of {planned.seeds} seeds" if planned.seeds > 1 else ""
    return (
        f"trial {best.number} of {tried}: {metric} {best.score:.4f}{mean}, the best on the public "
        f"file {planned.base.data.validation}"
    )


def _head(planned: Search, best: TriedSetting, tried: int, metric: str) -> str:
    """Returns the comments at the top; line breaks in file names must not end a comment."""
    lines = [
        f"Chosen by cloister tune, {score_words(planned, best, tried, metric)}.",
        *(f"Searched {one.field}: {one}" for one in planned.searched),
        data_words(planned),
        f"Suggestions: seed {planned.seed}. Noise and sampling come from the operating system, so "
        "another run of the search can choose other values.",
    ]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n"


def _commented(recipe: Recipe, planned: Search) -> str:
    """Returns the recipe's TOML with a comment at each searched field."""
    searched = {one.field: one for one in planned.searched}
    section, lines = "", []
    for line in recipe.to_toml().splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        field = f"{section}.{line.partition(' = ')[0]}"
        note = f"  # tuned: {' '.join(str(searched[field]).split())}" if field in searched else ""
        lines.append(line + note)
    return "\n".join(lines) + "\n"
