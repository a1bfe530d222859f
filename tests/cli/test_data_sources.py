"""`cloister data fhir` and `cloister data sql` on the command line."""

import json
import sqlite3
from pathlib import Path

from typer.testing import CliRunner

from cloister.cli.main import app
from cloister.errors import UsageError


def test_fhir_says_what_was_read_and_left_out(tmp_path: Path) -> None:
    bundle = {
        "resourceType": "Bundle",
        "entry": [
            {"resource": {"resourceType": "Condition", "id": "c"}},
            {
                "resource": {
                    "resourceType": "Observation",
                    "id": "o",
                    "subject": {"reference": "Patient/1"},
                    "valueString": "mild",
                }
            },
            {"resource": {"resourceType": "Observation", "id": "p", "valueString": "mild"}},
        ],
    }
    file, out = tmp_path / "b.json", tmp_path / "out.jsonl"
    file.write_text(json.dumps(bundle))
    result = CliRunner().invoke(app, ["data", "fhir", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    for told in (
        "1 record of 1 person",
        "it names no patient: 1",
        "not read: Condition 1",
        "known by reference only",
    ):
        assert told in " ".join(result.output.split())
    assert json.loads(out.read_text())["text"] == "mild"


def test_sql_reads_its_query_from_a_file(tmp_path: Path) -> None:
    database, query, out = tmp_path / "c.db", tmp_path / "q.sql", tmp_path / "out.csv"
    made = sqlite3.connect(database)
    made.execute("CREATE TABLE notes (note TEXT)")
    made.execute("INSERT INTO notes VALUES ('chest pain')")
    made.commit()
    made.close()
    query.write_text("SELECT note AS text FROM notes;\n")
    words = ["data", "sql", "--dsn", f"sqlite:///{database}", "--query", f"@{query}"]
    result = CliRunner().invoke(app, [*words, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"rows": 1, "columns": ["text"]}
    assert out.read_text() == "text\nchest pain\n"


def test_of_a_query_file_no_more_is_read_than_a_query_may_have() -> None:
    words = ["data", "sql", "--dsn", "sqlite:///c.db", "--query", "@/dev/zero"]  # it never ends
    result = CliRunner().invoke(app, [*words, "--out", "out.csv"])
    assert isinstance(result.exception, UsageError)
    assert "at most 100,000 are allowed" in str(result.exception)
