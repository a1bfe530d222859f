"""Measures a network on held-out records of one site, by privacy unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from cloister.data.records import Record
from cloister.errors import DataError, MisfitError
from cloister.names import counted
from cloister.privacy.units import Unit
from cloister.tasks.chat import CausalChat
from cloister.tasks.rouge import rouge_l
from cloister.tasks.tally.chosen import tally_of
from cloister.training.generation import generated_for, replies_to
from cloister.training.unit_rows import unit_rows
from cloister.training.units import encode_units, groups_of
from cloister.training.workspace import Workspace
from cloister.trust.held_out.scored import HeldOutScores, score_units
from cloister.trust.intervals import Interval, mean

# Of the bootstrap; a report about the same adapter and records is the same every time.
SEED = 0
# With fewer units little is known: Wilson's interval of a share of one half is wider than 0.3.
FEW = 30


@dataclass(frozen=True)
class HeldOutMeasured:
    """Scores of held-out records, and what was not scored.

    Attributes:
        scores: The scores.
        left_out: Numbers of records that are not scored, by reason.
    """

    scores: HeldOutScores
    left_out: Mapping[str, int]

    @property
    def cautions(self) -> list[str]:
        """What a reader must know, one sentence each."""
        notes = []
        if self.scores.units < FEW:
            notes.append(f"Only {self.scores.units} held out, so little is known.")
        if self.left_out:
            why = "; ".join(f"{count}: {reason}" for reason, count in self.left_out.items())
            notes.append(f"Held-out records that are not scored: {why}.")
        return notes


def measure_records(
    workspace: Workspace,
    records: Sequence[Record],
    unit: Unit,
    tokens: int,
    on_stage: Callable[[str], None],
) -> HeldOutMeasured:
    """Scores a loaded adapter on records; each unit counts as one.

    Args:
        workspace: Base and adapter.
        records: Held-out records of one site.
        unit: The privacy unit.
        tokens: Padded tokens of a physical batch.
        on_stage: Is called with the name of each stage.

    Raises:
        DataError: No record can be scored.
    """
    most = max(2, len(records))
    encoded = encode_units(records, workspace.task, unit, most, workspace.limits)
    units = [one for one in encoded.units if one]
    if not units:
        why = "; ".join(encoded.left_out) or "there is none"
        raise DataError(
            f"no held-out record can be scored ({why}); correct the records, or give another "
            "adapter"
        )
    on_stage(f"scoring {counted(len(units), unit.value)}")
    tally, rng = tally_of(workspace.task), np.random.default_rng(SEED)
    rows = unit_rows(workspace.network, workspace.task, tally, units, tokens)
    found = score_units(rows, tally, rng)
    replies = _replies(workspace, records, unit, rng, on_stage)
    if replies is not None:
        found = replace(found, scores={**found.scores, "rouge_l": replies})
    return HeldOutMeasured(found, dict(encoded.left_out))


def _replies(
    workspace: Workspace,
    records: Sequence[Record],
    unit: Unit,
    rng: np.random.Generator,
    say: Callable[[str], None],
) -> Interval | None:
    """Scores a chat model's replies by ROUGE-L, each unit's mean; None for other tasks."""
    task = workspace.task
    if not isinstance(task, CausalChat):
        return None
    prompts, wanted = [], []
    chats = generated_for(records)
    for record in chats:
        with suppress(MisfitError):
            prompts.append(task.prompt(record))
            wanted.append(record)
    if not wanted:
        return None
    say(f"generating {counted(len(wanted), 'reply')}")
    replies = replies_to(workspace.network, task, workspace.tokenizer, prompts)
    scores = [
        rouge_l([reply], [task.reference_text(record)])
        for reply, record in zip(replies, wanted, strict=True)
    ]
    means = [np.mean([scores[place] for place in places]) for places in groups_of(wanted, unit)]
    return mean(np.array(means), rng)
