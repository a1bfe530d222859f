"""A watch file is the only place of addresses, and is refused with every problem at once."""

from pathlib import Path

import pytest

from cloister.errors import BadFileError, RecipeError
from cloister.watching.watch_file import EXAMPLE, read_watch_file, watch_file_of

ROOT = Path(__file__).parents[2]
LEAST = """
[watch]
name = "news"
folder = "news.watch"
[source]
kind = "stdin"
[topics.all]
answers = ["negative"]
"""


def problems(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        watch_file_of(Path("watch.toml"), text.encode())
    return str(caught.value)


def test_the_example_is_valid_and_is_the_one_that_the_page_shows() -> None:
    found = watch_file_of(Path("/etc/news/watch.toml"), EXAMPLE.encode())
    assert found.folder == Path("/etc/news/news.watch")
    assert found.outside == ()
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    assert EXAMPLE in page
    other = page.split("```toml\n")[2].split("```")[0]
    mailed = watch_file_of(Path("watch.toml"), (LEAST + other).encode())
    assert mailed.outside == ("pager.bank.example",)


def test_the_least_file_is_valid() -> None:
    assert watch_file_of(Path("watch.toml"), LEAST.encode()).drift.psi_alert == 0.25


def test_unknown_keys_and_sections_are_named_together() -> None:
    found = problems(LEAST + "[drfit]\n[alerts]\nwebhook = []\n[drift]\npsi_alert = 'x'\n")
    assert "drfit: unknown section" in found
    assert "alerts.webhook: unknown key; did you mean webhooks?" in found
    assert "drift.psi_alert: 'x' given; a number" in found


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[alerts]\nwebhooks = ["https://pager.example/x"]', "is not this machine"),
        ('[alerts]\nwebhooks = ["http://127.0.0.1@evil.example/"]', "user or password"),
        ('[alerts]\nwebhooks = ["http://2130706433/"]', "is not this machine"),
        ('[alerts]\nwebhooks = ["http://localhost.evil.example/"]', "is not this machine"),
        ('[alerts]\nwebhooks = ["ftp://127.0.0.1/"]', "http or https"),
        ('[alerts]\nwebhooks = ["http://[::1/"]', "http or https"),
        ('[alerts]\nrecipients = ["a@b.c"]\nmail_server = "mx.example:25"', "is not this machine"),
        ('[alerts]\nrecipients = ["a@b.c"]\nmail_server = "localhost"', "host:port is needed"),
        ('[alerts]\nrecipients = ["a b@c"]', "not a mail address"),
        ('[alerts]\nrecipients = ["x"]', "of 3 to 320"),
        ('[http]\nlisten = "0.0.0.0:9470"', "not a loopback address"),
        ('[http]\nlisten = "9470"', "host:port is needed"),
        ('[topics.b]\nterms = ["x"]', "answers: missing"),
        (
            '[topics.b]\nterms = ["x"]\ncolumn = "y"\nanswers = ["z"]',
            "terms: given together with column",
        ),
        ('[topics."a/b"]\nanswers = ["z"]', "a section [topics.NAME] is needed"),
        ('[topics."a=b"]\nanswers = ["z"]', "without ="),
        ("[surges]\nwindow_seconds = 1000", "a multiple of step_seconds"),
        ("[surges]\nstep_seconds = 1", "take longer steps"),
        ("[drift]\npsi_calm = 0.5", "at most psi_alert"),
        ("[drift]\nfalse_alarm = nan", "a number from"),
    ],
)
def test_what_cannot_be_is_refused(more: str, told: str) -> None:
    assert told in problems(LEAST + more)


def test_a_host_beyond_this_machine_is_named_twice_and_said() -> None:
    text = '[alerts]\nwebhooks = ["https://Pager.example/x"]\noutside_hosts = ["pager.example"]'
    found = watch_file_of(Path("watch.toml"), (LEAST + text).encode())
    assert found.outside == ("pager.example",)
    refused = problems(LEAST + '[alerts]\nwebhooks = ["https://pager.example/x"]')
    assert "computed from private records, and no noise is added" in refused


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "[::1]", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    text = f'[alerts]\nwebhooks = ["http://{host}:9/x"]\n[http]\nlisten = "{host}:9470"'
    assert watch_file_of(Path("watch.toml"), (LEAST + text).encode()).outside == ()


def test_sections_that_are_missing_or_nothing_to_watch() -> None:
    assert "watch: missing" in problems("")
    assert "source: missing" in problems("")
    assert "nothing to watch" in problems(LEAST.partition("[topics")[0])
    assert "watch.folder: missing" in problems(LEAST.replace('folder = "news.watch"', ""))
    assert "file: needed" in problems(LEAST.replace('"stdin"', '"file"'))
    assert "http.listen: missing" in problems(LEAST.replace('"stdin"', '"http"'))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="no such file"):
        read_watch_file(tmp_path / "watch.toml")
