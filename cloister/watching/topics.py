"""Which topics a row is of, and whether its answer is one that a topic counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.watching.config import TopicConfig
from cloister.watching.row import StreamRow

# Letters of scripts that put no spaces between words: a term of them stands anywhere.
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = re.compile(rf"[^\W{_NO_SPACES}]")
# Values of a column that become topics by themselves.
MOST_VALUES = 200


@dataclass(frozen=True)
class Topics:
    """The topics of a watch file, made ready.

    Attributes:
        configs: By name.
        patterns: Of topics by terms, by name.
    """

    configs: Mapping[str, TopicConfig]
    patterns: Mapping[str, re.Pattern[str]]


def make_topics(configs: Mapping[str, TopicConfig]) -> Topics:
    """Prepares the topics of a watch file."""
    patterns = {name: _pattern(one.terms) for name, one in configs.items() if one.terms}
    return Topics(configs, patterns)


def topics_of(topics: Topics, row: StreamRow) -> list[tuple[str, bool]]:
    """The topics that a row is of, each with whether its answer counts.

    A topic of a column is `NAME=VALUE`; one without terms and column has all rows.
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
    """A term as a pattern: no letter before its first one or after its last, where it has such."""
    letter = _LETTER.pattern
    text = r"\s+".join(map(re.escape, words))
    before = f"(?<!{letter})" if words and _LETTER.match(words[0]) else ""
    after = f"(?!{letter})" if words and _LETTER.match(words[-1][-1]) else ""
    return f"{before}{text}{after}" if words else r"(?!)"
