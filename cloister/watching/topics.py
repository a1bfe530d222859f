"""Finds a row's topics, and whether each topic counts the row's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.watching.config import TopicConfig
from cloister.watching.row import StreamRow

# Letters of scripts without spaces between words: a term in them matches anywhere.
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = re.compile(rf"[^\W{_NO_SPACES}]")
# Most values of a column that become topics without being named.
MOST_VALUES = 200


@dataclass(frozen=True)
class Topics:
    """The topics of a watch file, with compiled terms.

    Attributes:
        configs: The sections by name.
        patterns: The compiled terms of topics with terms, by name.
    """

    configs: Mapping[str, TopicConfig]
    patterns: Mapping[str, re.Pattern[str]]


def make_topics(configs: Mapping[str, TopicConfig]) -> Topics:
    """Compiles the topics of a watch file."""
    patterns = {name: _pattern(one.terms) for name, one in configs.items() if one.terms}
    return Topics(configs, patterns)


def topics_of(topics: Topics, row: StreamRow) -> list[tuple[str, bool]]:
    """Returns a row's topics, each with whether its answer is counted.

    A topic of a column is `NAME=VALUE`; a topic without terms and column has all rows.
    """
    found = []
    folded = None if row.text is None or not topics.patterns else row.text.casefold()
    for name, config in topics.configs.items():
        if config.column is not None:
            value = row.cells.get(config.column)
            if value is None or (config.values and value not in config.values):
                continue
            found.append((f"{name}={value}", _counts(config, row)))
        elif name not in topics.patterns or (folded and topics.patterns[name].search(folded)):
            found.append((name, _counts(config, row)))
    return found


def _counts(config: TopicConfig, row: StreamRow) -> bool:
    if not row.answers.isdisjoint(config.answers):
        return True
    if row.score is None or (config.at_least is None and config.at_most is None):
        return False
    low = config.at_least is None or row.score >= config.at_least
    return low and (config.at_most is None or row.score <= config.at_most)


def _pattern(terms: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(_of_term(term.casefold().split()) for term in terms))


def _of_term(words: Sequence[str]) -> str:
    """Returns a term's pattern, which matches whole words in scripts with spaces."""
    letter = _LETTER.pattern
    text = r"\s+".join(map(re.escape, words))
    before = f"(?<!{letter})" if words and _LETTER.match(words[0]) else ""
    after = f"(?!{letter})" if words and _LETTER.match(words[-1][-1]) else ""
    return f"{before}{text}{after}" if words else r"(?!)"
