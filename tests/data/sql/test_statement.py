"""Only one reading statement is accepted, whatever is quoted or commented in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.sql.statement import check_reading
from cloister.errors import UsageError
from tests.support.examples import tries


@pytest.mark.parametrize(
    "query",
    [
        "SELECT note AS text FROM notes",
        "select 'a; DROP TABLE notes' AS text;",
        "WITH x AS (SELECT 1) SELECT * FROM x -- ; DELETE",
        "/* DELETE */ VALUES (1)",
        "/* a /* nested; */ ; */ TABLE notes",
        'SELECT "update" FROM notes ; ',
        "SELECT $$; DROP $$, $t$ ; $$ $t$",
        "SELECT E'it''s \\'; DROP' AS text",
    ],
)
def test_a_query_that_reads_is_taken(query: str) -> None:
    assert (
        check_reading(query) == query[: query.rindex(";")]
        if query.rstrip().endswith(";")
        else query
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "begins with nothing"),
        ("-- SELECT 1", "begins with nothing"),
        ("DROP TABLE notes", "begins with DROP"),
        ("PRAGMA query_only = OFF", "begins with PRAGMA"),
        ("ATTACH 'x.db' AS x", "begins with ATTACH"),
        ("EXPLAIN ANALYZE DELETE FROM notes", "begins with EXPLAIN"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT 1; DROP TABLE notes", "several statements"),
        ("SELECT 'a''; DROP TABLE notes; --'; DROP TABLE notes", "several statements"),
        ("SELECT E'\\\\'; DROP TABLE notes; --'", "several statements"),
        ("WITH x AS (DELETE FROM notes RETURNING *) SELECT * FROM x", "contains DELETE"),
        ("SELECT * INTO copied FROM notes", "contains INTO"),
        ("SELECT * FROM notes FOR UPDATE", "contains UPDATE"),
        ("SELECT 1" + " " * 100_000, "at most"),
    ],
)
def test_a_query_that_may_write_is_refused(query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_reading(query)


pieces = st.sampled_from(
    ["'", '"', "$$", "$a$", "--", "/*", "*/", "\n", ";", "\\", "E", " SELECT ", " DROP ", "x", "1"]
)


@settings(max_examples=tries(200), deadline=None)
@given(st.lists(pieces, max_size=12).map("".join))
def test_no_second_statement_that_a_plain_reading_sees_gets_through(tail: str) -> None:
    """Where nothing is quoted or commented, the plain reading is right."""
    query = f"SELECT 1 {tail}"
    plain = not any(mark in query for mark in ("'", '"', "$", "--", "/*"))
    try:
        statement = check_reading(query)
    except UsageError:
        return
    assert query.startswith(statement)
    if plain:
        assert ";" not in statement
        assert "DROP" not in statement.upper().split()
