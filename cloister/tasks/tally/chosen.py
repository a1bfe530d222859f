"""Chooses the sums from which a task's scores follow, and those that may be released noised."""

from __future__ import annotations

from cloister.errors import RefusedError
from cloister.tasks.chat import CausalChat
from cloister.tasks.guard import GuardedTask
from cloister.tasks.multilabel import MultiLabelClassification
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.scoring import Scoring
from cloister.tasks.tally.label_statistics import LabelStatistics
from cloister.tasks.tally.label_tally import LabelTally
from cloister.tasks.tally.loss_tally import MeanTally, TokenLossTally
from cloister.tasks.tally.rank_tally import RankTally
from cloister.tasks.tally.score_tally import ScoreTally
from cloister.tasks.tally.set_statistics import SetStatistics
from cloister.tasks.tally.set_tally import SetTally
from cloister.tasks.tally.tallies import TaskTally
from cloister.tasks.tally.token_statistics import TokenStatistics
from cloister.tasks.tally.unit_statistics import Statistics
from cloister.tasks.task import Task
from cloister.tasks.token import TokenClassification


def tally_of(task: Task) -> TaskTally:
    """Returns a task's tally.

    Args:
        task: A built-in task, or a plug-in's.
    """
    if isinstance(task, GuardedTask):
        return MeanTally(task)
    if isinstance(task, CausalChat):
        return TokenLossTally(task)
    if isinstance(task, MultiLabelClassification | TokenClassification):
        return SetTally(task)
    if isinstance(task, Scoring):
        return ScoreTally(task)
    if isinstance(task, Retrieval | Recommendation):
        return RankTally(task)
    return LabelTally(task)  # one label for each record: a text, or a pair of texts


def statistics_of(tally: TaskTally) -> Statistics:
    """Returns the bounded statistics of a task's tally.

    Raises:
        RefusedError: The task's scores have no bounded statistics.
    """
    if isinstance(tally, LabelTally):
        return LabelStatistics(tally)
    if isinstance(tally, SetTally):
        return SetStatistics(tally)
    if isinstance(tally, TokenLossTally) and tally.task.dpo_beta is None:
        return TokenStatistics(tally)
    raise RefusedError(
        "privacy.evaluation_rounds: the scores of this task have no statistics with a public bound "
        "on one unit; leave it out, or evaluate at home (cloister site evaluate)"
    )
