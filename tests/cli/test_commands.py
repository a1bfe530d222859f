"""Each command's help, output and exit code, and whether it prints to stdout or stderr."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloister import __version__
from cloister.cli.display import epsilon_cell
from cloister.cli.main import app, command_line, run
from tests.support.studies import small_assignments


def finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str, str]:
    sets = [a for value in small_assignments(tmp_path / "study") for a in ("--set", value)]
    out = tmp_path / "run"
    assert run(["simulate", *sets, "--twin", "--json", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    return out, captured.out, captured.err


def test_results_go_to_stdout_and_the_rest_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, printed, told = finished_run(tmp_path, capsys)
    document = json.loads(printed)
    assert document["run_dir"] == str(out)
    assert 0 <= document["plain_test"]["accuracy"] <= 1
    # A row a round, for the run and its twin; the promise with all that it needs; where things are.
    assert told.count("1/2 ") == told.count("2/2 ") == 2
    for word in (
        "promised for the whole plan",
        "δ = 1e-05",
        "one record",
        "add/remove",
        "coordinator",
        "public",
        "adapter/",
    ):
        assert word in told.replace("\n", " ")


def test_evaluate_agrees_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, printed, _ = finished_run(tmp_path, capsys)
    test = str(tmp_path / "study" / "test.jsonl")
    plot = tmp_path / "classes.png"
    assert run(["evaluate", str(out), "--data", test, "--json", "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    scored = json.loads(capsys.readouterr().out)
    assert scored["records"] == 30
    assert scored["metrics"]["accuracy"] == json.loads(printed)["test"]["accuracy"]
    assert sum(row["support"] for row in scored["report"].values()) == 30
    other = str(plot.with_suffix(".pdf"))
    assert run(["evaluate", str(out), "--data", test, "--plot", other]) == 2
    assert "end it in .png" in capsys.readouterr().err
    assert run(["evaluate", str(out), "--data", test, "--plot", str(plot)]) == 2
    assert "classes.png exists already" in capsys.readouterr().err
    assert run(["evaluate", str(out / "adapter"), "--data", test]) == 0
    assert "cardiology" in capsys.readouterr().out


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in app.registered_commands:
        assert run([str(command.name), "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"cloister {command.name}" in shown
        assert "Example" in shown


def test_every_verb_of_a_group_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for verb in group.typer_instance.registered_commands:
            assert run([str(group.name), str(verb.name), "--help"]) == 0
            assert f"Example: cloister {group.name} {verb.name}" in capsys.readouterr().out


def test_every_argument_of_every_command_says_what_it_is() -> None:
    def silent(name: str, one: click.Command) -> Iterator[str]:
        for parameter in one.params:
            if not getattr(parameter, "help", None):
                yield f"{name}: {parameter.name}"
        for child, below in one.commands.items() if isinstance(one, click.Group) else ():
            yield from silent(f"{name} {child}", below)

    assert list(silent("cloister", command_line())) == []


def test_the_options_are_these_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    """A new option is a decision: it is added here, and to the README where users need it."""
    found = {
        str(command.name): sorted(
            option for parameter in command_parameters(str(command.name)) for option in parameter
        )
        for command in app.registered_commands
    }
    assert found == {
        "simulate": [
            "--dry-run",
            "--engine",
            "--folds",
            "--from",
            "--json",
            "--no-twin",
            "--out",
            "--ray-address",
            "--resume",
            "--seeds",
            "--set",
            "--sweep",
            "--twin",
            "--verbose",
            "--work",
            "--workers",
        ],
        "fetch": ["--json"],
        "synthesize": [
            "--base",
            "--count",
            "--creator",
            "--device",
            "--json",
            "--keep-duplicates",
            "--license",
            "--max-length",
            "--min-length",
            "--most-tokens",
            "--out",
            "--prompts",
            "--seed",
            "--temperature",
            "--texts",
            "--top-p",
            "--url",
            "--votes",
            "--without-promise",
        ],
        "tune": [
            "--budget",
            "--engine",
            "--json",
            "--out",
            "--page",
            "--public",
            "--ray-address",
            "--search",
            "--seed",
            "--seeds",
            "--set",
            "--trials",
            "--verbose",
        ],
        "compare": ["--json", "--out"],
        "track": ["--folder", "--json", "--mlflow", "--online", "--wandb"],
        "new": ["--data", "--out", "--test"],
        "plan": ["--json", "--layers", "--set"],
        "export": ["--base", "--gguf", "--json"],
        "epsilon": [
            "--accountant",
            "--delta",
            "--event",
            "--json",
            "--noise-multiplier",
            "--sample-rate",
            "--steps",
        ],
        "evaluate": ["--data", "--held-out", "--json", "--plot", "--plugin"],
        "predict": [
            "--base",
            "--data",
            "--device",
            "--json",
            "--out",
            "--resume",
            "--text",
            "--text-b",
            "--threshold",
            "--top",
        ],
        "serve": [
            "--base",
            "--batch-tokens",
            "--certificate",
            "--device",
            "--documents",
            "--dtype",
            "--feedback",
            "--feedback-key",
            "--host",
            "--key",
            "--least-score",
            "--model",
            "--port",
            "--queue",
            "--rate",
            "--registry",
            "--retriever",
            "--stage",
            "--timeout",
            "--tokens",
        ],
        "serve-token": ["--tokens"],
        "dashboard": ["--host", "--keys", "--port", "--static", "--token"],
        "bundle": [
            "--ca-passphrase-file",
            "--index-url",
            "--lock",
            "--model",
            "--new-signer",
            "--signer",
            "--source",
        ],
        "env": ["--json"],
    }


def command_parameters(name: str) -> list[list[str]]:
    import typer.main

    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    return [
        [option for option in (*p.opts, *p.secondary_opts) if option.startswith("--")]
        for p in command.params
        if p.name != "help"
    ]


@pytest.mark.parametrize(
    ("epsilon", "cell"),
    [
        ({}, "–"),
        ({"a": 1.234}, "1.24"),  # what is read is never less than what holds
        ({"a": 1.0, "b": 1.0}, "1.00 at each of 2"),
        ({"a": 1.0, "b": float("inf")}, "a 1.00, b ∞"),
    ],
)
def test_equal_epsilons_are_said_once(epsilon: dict[str, float], cell: str) -> None:
    assert epsilon_cell(epsilon) == cell


def test_the_version_is_printed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_a_shell_can_complete_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_CLOISTER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "cloister sim")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as ended:
        run(["sim"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == ["simulate"]
