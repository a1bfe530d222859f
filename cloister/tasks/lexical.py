"""Scores a retrieval baseline without a model: rank passages by shared words (TF-IDF)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cloister.data.records import Record, TextRecord
from cloister.tasks.config import TaskConfig
from cloister.tasks.ranking import ranks_of
from cloister.tasks.retrieval import found_scores


def lexical_scores(task: TaskConfig, test: Sequence[Record]) -> dict[str, float]:
    """Returns the scores of ranking a retrieval study's passages by TF-IDF.

    TF-IDF is fitted on the passages only. Its terms are words and pairs of words, with sublinear
    counts; if no passage has spaces, as in Chinese, groups of one to three characters.

    Args:
        task: The study's task.
        test: Public queries, each with the id of its passage.

    Returns:
        Scores by name, as in `found_scores`; empty for another task.
    """
    if task.passages is None:
        return {}
    from sklearn.feature_extraction.text import TfidfVectorizer  # late: as in `tasks.sequence`

    passages = dict(task.passages)
    texts = [passages[name] for name in task.labels]
    if any(" " in text.strip() for text in texts):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    else:
        words = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    of_passages = words.fit_transform(texts)
    queries = [record for record in test if isinstance(record, TextRecord)]
    scores = (words.transform(record.text for record in queries) @ of_passages.T).toarray()
    right = torch.tensor([task.labels.index(record.label) for record in queries])
    return found_scores(ranks_of(torch.from_numpy(scores), right))
