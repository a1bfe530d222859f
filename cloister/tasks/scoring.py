"""The task of giving a text a number within a declared range, such as the mark of an essay.

Loss: the fractional logit (Papke and Wooldridge 1996, J. Applied Econometrics 11). With
y = (score − low) / (high − low) and p = σ(z) it is −y·log p − (1 − y)·log(1 − p). Its minimum over
p is the mean of y given the text, as with squared error, and the score that p gives lies in the
range for every z. Why this loss under clipping: a record's gradient at the head is (p − y)·f, never
longer than the text's vector f. The gradient of squared error grows with z; through a sigmoid
(Taghipour and Ng 2016, EMNLP) it vanishes where the network is confidently wrong. Why not
cumulative links (CORAL, Cao et al. 2020, arXiv:1901.07884): they need K − 1 thresholds on one
shared row, so the head would have another form for each K, and a range without steps has no K.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.data.records import Record, RecordKind, ScoreRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.collate import collate_wanted
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.losses import output_losses
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.score_scale import ScoreScale
from cloister.tasks.task import Batch, BatchShape, Example

TASK = {"kind": "scoring", "records": "score"}


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> Scoring:
    """Binds the task; see `build_task`. It has no labels."""
    if config.score_range is None:
        raise UsageError("task.score_range: none given; scoring needs [lowest, highest]")
    scale = ScoreScale.of(config.score_range, config.score_step)
    return Scoring(tokenizer, config.max_length, pad_id, scale)


@dataclass(frozen=True)
class Scoring:
    """The task of giving each text a number within a range.

    Attributes:
        tokenizer: The base's.
        max_length: Longest text in tokens.
        pad_id: Token id of padding.
        scale: The range, and its step where scores are grades.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    scale: ScoreScale
    labels: tuple[str, ...] = ("score",)
    kind: TaskKind = "scoring"
    record_kind: RecordKind = "score"

    @property
    def primary_metric(self) -> str:
        """Agreement of grades by weighted kappa; without steps, correlation."""
        return "pearson" if self.scale.step is None else "qwk"

    def encode(self, record: Record) -> Example:
        """Tokenizes a text; see `Task.encode`.

        Raises:
            MisfitError: The score is not on the study's scale.
        """
        assert isinstance(record, ScoreRecord)
        if (problem := self.scale.problem(record.score)) is not None:
            raise MisfitError(problem, problem)
        ids = text_ids(self.tokenizer, record.text, self.max_length, self.pad_id)
        return Example(ids, 0, wanted=((0, self.scale.share(record.score)),))

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than `max_length`, so that its end is not read."""
        return is_text_cut(self.tokenizer, text, self.max_length)

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch whose target, [B, 1], is each score's share of the range."""
        return collate_wanted(examples, 1, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of each text's share of the range, [B]."""
        return output_losses(logits, batch.target)

    def meter(self) -> ScoreMeter:
        """Returns a new meter of errors, correlation, agreement and loss."""
        return ScoreMeter(self)


@dataclass
class ScoreMeter:
    """Collects predicted and true scores."""

    task: Scoring
    _predicted: list[float] = field(default_factory=list)
    _true: list[float] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, 1]."""
        scale = self.task.scale
        self._predicted += map(scale.score, logits[:, 0].double().sigmoid().tolist())
        self._true += map(scale.score, batch.target[:, 0].double().tolist())
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Errors and agreement of predicted and true scores.

        Returns:
            `qwk` (Cohen 1968, Psychological Bulletin 70), of predictions
            rounded to the nearest grade, where the scale has steps. Of predictions as they are:
            `pearson`, 0 where either side is constant; `mae` and `rmse`, in the score's unit.
            `loss`.
        """
        predicted, true = np.asarray(self._predicted), np.asarray(self._true)
        count, scale = max(len(true), 1), self.task.scale
        found: dict[str, float] = {}
        if scale.step is not None:
            grades = [np.asarray([scale.grade(v) for v in side]) for side in (true, predicted)]
            found["qwk"] = quadratic_weighted_kappa(*grades)
        return {
            **found,
            "pearson": pearson(true, predicted),
            "mae": float(np.abs(predicted - true).sum()) / count,
            "rmse": float(np.sqrt(((predicted - true) ** 2).sum() / count)),
            "loss": self._loss / count,
        }

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Mean prediction, mean absolute error and support of each grade; none without steps."""
        scale = self.task.scale
        if scale.step is None:
            return {}
        by_grade: dict[int, list[float]] = defaultdict(list)
        for true, predicted in zip(self._true, self._predicted, strict=True):
            by_grade[scale.grade(true)].append(predicted)
        return {
            f"{scale.of_grade(grade):g}": {
                "mean_prediction": float(np.mean(found)),
                "mae": float(np.mean(np.abs(np.asarray(found) - scale.of_grade(grade)))),
                "support": float(len(found)),
            }
            for grade, found in sorted(by_grade.items())
        }


def quadratic_weighted_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the agreement of two raters' grades beyond chance; large differences count more.

    1 − E(a − b)² / E′(a − b)², where E′ pairs the raters' grades at random; so no table of grades
    is needed (Fleiss and Cohen 1973, Educational and Psychological Measurement 33).

    Args:
        one: A rater's grades as whole numbers, [N].
        other: The other's, of the same records.

    Returns:
        At most 1; 0 if both raters always give one and the same grade, or there is no record.
    """
    if not len(one):
        return 0.0
    by_chance = float(one.var() + other.var() + (one.mean() - other.mean()) ** 2)
    return 1.0 - float(((one - other) ** 2).mean()) / by_chance if by_chance else 0.0


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two lists of numbers, [N] each; 0 where either is constant."""
    if not len(one) or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
