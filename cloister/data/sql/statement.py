"""Refuses a query that is not exactly one reading statement.

This is the first of several checks: the connection itself is restricted to reading
(`connection.py`), and the database's own rights decide last. It reports a mistake before any
connection is made.
"""

from __future__ import annotations

import re

from cloister.errors import UsageError

# First words of statements that return rows.
FIRST = ("SELECT", "WITH", "VALUES", "TABLE")
# Words with which a statement of FIRST can write: changes inside of WITH, a table made by INTO,
# locks by FOR UPDATE or FOR SHARE.
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "TRUNCATE", "DROP", "ALTER"})
# Comments, quoted texts and names, as PostgreSQL and SQLite spell them. A text without its closing
# quote extends to the end of the query.
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
# Longest query in characters; people write shorter ones.
MOST_CHARACTERS = 100_000


def check_reading(query: str) -> str:
    """Returns the query's statement, without the semicolon at its end.

    Raises:
        UsageError: It is empty, several statements, or one that may write.
    """
    if len(query) > MOST_CHARACTERS:
        raise UsageError(
            f"--query: {len(query):,} characters given; at most {MOST_CHARACTERS:,} are allowed"
        )
    bare = _bare(query)
    statement = query
    if ";" in bare:
        end = bare.index(";")
        if bare[end + 1 :].strip("; \t\r\n"):
            raise UsageError("--query: several statements given; one reading statement is needed")
        statement = query[:end]
        bare = bare[:end]
    words = [word.upper() for word in _WORD.findall(bare)]
    if not words or words[0] not in FIRST:
        found = words[0][:20] if words else "nothing"
        raise UsageError(
            f"--query: begins with {found}; a reading statement is needed, one of "
            f"{', '.join(FIRST)}"
        )
    if writing := [word for word in words if word in _WRITING]:
        raise UsageError(
            f"--query: contains {writing[0]}, which may write; only reading queries are run. If it "
            'is the name of a column, put it in double quotes ("update")'
        )
    return statement


def _bare(query: str) -> str:
    """Returns the query with quoted texts and comments replaced by blanks, of the same length."""
    found, at = [], 0
    while match := _SKIPPED.search(query, at):
        end = match.end()
        if match.group().startswith("/*"):
            end = _comment_end(query, match.start())
        found += [query[at : match.start()], " " * (end - match.start())]
        at = end
    return "".join([*found, query[at:]])


def _comment_end(query: str, start: int) -> int:
    """Returns where a comment ends; comments may nest, as in PostgreSQL.

    SQLite ends it at the first `*/`; if the rest is then a writing statement, SQLite's own
    restrictions refuse it.
    """
    depth = 0
    for mark in re.finditer(r"/\*|\*/", query[start:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(query)
