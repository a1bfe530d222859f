"""The `[records]` section of a `site.toml`: what a site declares in public about its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cloister.bounds import MOST_PATH, Text, shortened
from cloister.errors import UsageError
from cloister.fields import check_bounds
from cloister.plugins import is_installed
from cloister.tasks.config import TaskConfig, TaskName, known_kinds
from cloister.tasks.plugins import GROUP
from cloister.tasks.registry import BUILT_IN


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    """The `[records]` section: a public declaration of what the site's records hold.

    The records are read and checked against it before any study arrives, so that the check depends
    on no study. A study that the site joins names every label here: if one were missing, the site's
    answer would depend on whether a record has that label.

    Attributes:
        task: The task for which they are labelled: a built-in kind, or a plug-in's name.
        labels: Class names, entity types without their B-/I- prefix, or ids of public passages,
            from a public code book; none for conversations and scores.
        score_range: For scoring: the lowest and the highest possible score.
        score_step: For scoring: the distance of two grades; absent: every number in the range is
            a score.
        items: For recommendation, where it is needed: this site's copy of the public file of
            items, relative to `site.toml`, or the generator `synthetic:shops` or
            `synthetic:shops-zh`. A study runs only if its items have the same bytes.
    """

    task: TaskName
    labels: tuple[str, ...] = ()
    score_range: tuple[float, ...] | None = None
    score_step: float | None = None
    items: Annotated[str, Text(MOST_PATH, least=1)] | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.task not in BUILT_IN and not is_installed(self.task, GROUP):
            raise UsageError(f"task: {shortened(self.task)} given; {known_kinds()} needed")
        if self.task != "scoring" and (self.score_range, self.score_step) != (None, None):
            raise UsageError(
                f"score_range: given for {self.task}; only scoring has it: leave it out"
            )
        if self.task != "recommendation" and self.items is not None:
            raise UsageError(
                f"items: given for {self.task}; only recommendation has them: leave the key out"
            )
        if self.task == "causal-lm":
            if self.labels:
                raise UsageError("labels: conversations have none; leave the key out")
            return
        if self.task == "scoring":
            if self.labels:
                raise UsageError("labels: scored texts have none; leave the key out")
            TaskConfig(kind="scoring", score_range=self.score_range, score_step=self.score_step)
            return
        if self.task == "recommendation":
            TaskConfig(kind="recommendation", labels=self.labels, items=self.items)
            return
        several = ("sequence-classification", "text-pairs", "retrieval")
        fewest = 2 if self.task in several else 1
        if len(self.labels) < fewest:
            raise UsageError(
                f"labels: {len(self.labels)} given; at least {fewest} are needed: list every "
                "label of the public code book, whether or not it occurs"
            )
        if len(set(self.labels)) != len(self.labels) or not all(map(str.strip, self.labels)):
            raise UsageError("labels: a label is empty or duplicate; give each once")
