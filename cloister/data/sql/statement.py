"""Refuses a query that is not one single statement that reads.

This check is the first of several: the connection itself is held to reading (`connection.py`), and
a database's own rights are the last word. It is made so that a mistake is told before a connection.
"""

from __future__ import annotations

import re

from cloister.errors import UsageError

# Statements that give rows, with which a reading query begins.
FIRST = ("SELECT", "WITH", "VALUES", "TABLE")
# Words that make a statement of FIRST write: rows changed inside of WITH, a table made by INTO,
# locks taken by FOR UPDATE or FOR SHARE.
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "TRUNCATE", "DROP", "ALTER"})
# Comments, quoted texts and names, in the spellings of PostgreSQL and SQLite. A text whose end is
# missing runs to the end of the query.
_SKIPPED = re.compile(
    r"""
    --[^\n]*
  | /\*(?:(?!\*/|/\*).)*(?:\*/|\Z)
  | [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)
  | '(?:[^']|'')*(?:'|\Z)
  | "(?:[^"]|"")*(?:"|\Z)
  | \$(?P<tag>[A-Za-z_]\w*)?\$.*?(?:\$(?P=tag)?\$|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z_]\w*")
# Longest query; one of this length is written by a program.
MOST_CHARACTERS = 100_000


def check_reading(query: str) -> str:
    """The one statement of a query, without the semicolon at its end.

    Raises:
        UsageError: It is empty, several statements, or one that may write.
    """
    if len(query) > MOST_CHARACTERS:
        raise UsageError(
            f"--query: {len(query):,} characters given; at most {MOST_CHARACTERS:,} are taken"
        )
    bare = _bare(query)
    statement = query
    if ";" in bare:
        end = bare.index(";")
        if bare[end + 1 :].strip("; \t\r\n"):
            raise UsageError("--query: several statements given; one that reads is needed")
        statement = query[:end]
        bare = bare[:end]
    words = [word.upper() for word in _WORD.findall(bare)]
    if not words or words[0] not in FIRST:
        found = words[0][:20] if words else "nothing"
        raise UsageError(
            f"--query: begins with {found}; a statement that reads is needed, one that begins with "
            f"{', '.join(FIRST)}"
        )
    if writing := [word for word in words if word in _WRITING]:
        raise UsageError(
            f"--query: holds {writing[0]}, which may write; only queries that read are run. Where "
            'it names a column, write it in double quotes ("update")'
        )
    return statement


def _bare(query: str) -> str:
    """The query with everything quoted or commented blanked, each character in its place."""
    found, at = [], 0
    while match := _SKIPPED.search(query, at):
        end = match.end()
        if match.group().startswith("/*"):
            end = _comment_end(query, match.start())
        found += [query[at : match.start()], " " * (end - match.start())]
        at = end
    return "".join([*found, query[at:]])


def _comment_end(query: str, start: int) -> int:
    """Where a comment ends that may hold comments, as PostgreSQL reads them.

    SQLite ends it at the first `*/`; what it then takes for a statement is refused by its own hold.
    """
    depth = 0
    for mark in re.finditer(r"/\*|\*/", query[start:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(query)
