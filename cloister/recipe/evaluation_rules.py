"""Checks that a recipe has public test records or private evaluations, and that these fit it."""

from __future__ import annotations

from cloister.recipe.schema import Recipe

NO_LABELS = (
    "task.labels: missing, and there is no public set whose labels could be taken; name every "
    "label of the code book (labels never come from private records)"
)


def evaluation_rules(recipe: Recipe) -> list[tuple[bool, str]]:
    """Returns whether each rule on scores is broken, and its message."""
    evaluations, task, lora = recipe.privacy.evaluations, recipe.task, recipe.lora
    data = recipe.data
    is_scored = data.test_source is not None or data.fold is not None
    if recipe.votes is not None:  # nothing is scored; `recipe.vote_rules` has what votes need
        return []
    if evaluations is None:
        # Otherwise private records would be scored, and scores are public.
        return [
            (
                not is_scored,
                f"data.test: missing, and {data.train} has no test split; give a public test set, "
                "or have the sites score held-out records privately (privacy.evaluation_rounds)",
            )
        ]
    has_labels = bool(task.labels) or is_scored or data.validation is not None
    name, last = "privacy.evaluation_rounds", evaluations.rounds[-1]
    bounded = task.records in ("text", "pairs", "tokens", "messages", "labels")
    return [
        (
            not has_labels and task.records != "messages",
            NO_LABELS,
        ),
        (
            last > recipe.federation.num_rounds,
            f"{name}: {last} is above federation.num_rounds = {recipe.federation.num_rounds}; name "
            "rounds of the study",
        ),
        (
            task.plugin is not None or not bounded or task.kind == "retrieval",
            f"{name}: the scores of {task.kind} have no statistics with a public bound on one "
            "unit; leave it out, or evaluate at home (cloister site evaluate)",
        ),
        (
            task.loss == "dpo",
            f'{name}: not possible with task.loss = "dpo", whose score compares two replies; leave '
            "one of them out",
        ),
        (
            lora.train == "b-kept" or bool(lora.ranks) or recipe.training.personal,
            f"{name}: one global adapter is evaluated, and here sites have adapters of their own "
            "or of different ranks; leave lora.ranks, training.personal and lora.train = "
            '"b-kept" out',
        ),
        (
            recipe.study.start is not None,
            f"{name}: not possible with --from: the earlier study may have trained on units that "
            "are held out now; leave it out",
        ),
    ]
