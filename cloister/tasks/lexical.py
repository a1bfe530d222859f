"""What a ranking by shared words reaches: the baseline beside a retrieval study's scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from cloister.data.records import Record, TextRecord
from cloister.tasks.config import TaskConfig
from cloister.tasks.ranking import ranks_of
from cloister.tasks.retrieval import found_scores


def lexical_scores(task: TaskConfig, test: Sequence[Record]) -> dict[str, float]:
    """Scores of ranking a retrieval study's passages by TF-IDF, fitted on the passages alone.

    Cosines of vectors of words and pairs of words with sublinear counts; where no passage has
    blanks, as in Chinese, of one to three characters.

    Args:
        task: The study's.
        test: Public queries, each with the id of its passage.

    Returns:
        By name, as `found_scores`; empty for another task.
    """
    if task.passages is None:
        return {}
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
