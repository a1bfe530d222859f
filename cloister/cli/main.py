"""The whole command line: collects the commands, and prints errors as one message with an exit
code."""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import cache

import click
import typer

from cloister import __version__
from cloister.cli import (
    audit,
    compare,
    dashboard,
    data,
    environment,
    epsilon,
    evaluate,
    export,
    fetch,
    index,
    ledger,
    member,
    model,
    new,
    offline,
    plan,
    predict,
    serve,
    server,
    simulate,
    site,
    synthesize,
    track,
    tune,
)
from cloister.cli import (
    run as runs,
)
from cloister.cli.local_paths import paths_of_this_machine
from cloister.cli.streams import Printing, printing, say_error
from cloister.cli.typer_and_click import mended
from cloister.errors import BadFileError, CloisterError, NetworkError, UsageError
from cloister.files import bad_file
from cloister.quiet import keep_quiet

app = typer.Typer(
    name="cloister",
    help="Fine-tune a language model together, with differential privacy; records stay at home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("new")(new.new)
app.command("simulate")(simulate.simulate)
app.command("fetch")(fetch.fetch)
app.command("tune")(tune.tune)
app.command("compare")(compare.compare)
app.command("track")(track.track)
app.command("plan")(plan.plan)
app.command("epsilon")(epsilon.epsilon)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("serve")(serve.serve)
app.command("serve-token")(serve.serve_token)
app.command("synthesize")(synthesize.synthesize)
app.command("export")(export.export)
app.command("dashboard")(dashboard.dashboard)
app.command("bundle")(offline.bundle)
app.command("env")(environment.environment)
app.add_typer(data.app, name="data")
app.add_typer(index.app, name="index")
app.add_typer(ledger.app, name="ledger")
app.add_typer(audit.app, name="audit")
app.add_typer(site.app, name="site")
app.add_typer(server.app, name="server")
app.add_typer(member.app, name="member")
app.add_typer(model.app, name="model")
app.add_typer(runs.app, name="run")


# Typer's return value for Ctrl-C, which it does not raise.
_TYPERS_INTERRUPT = 130


@cache
def command_line() -> click.Command:
    """Returns the whole command line as a click command."""
    return paths_of_this_machine(mended(typer.main.get_command(app)))


def _print_version(is_asked: bool) -> None:
    """Prints the version and exits before a missing command gives an error."""
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_print_version,
        is_eager=True,
        help="Print the version and exit.",
    ),
) -> None:
    """Options that come before any command."""


def main() -> None:
    """Runs the `cloister` command and exits."""
    keep_quiet()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=Printing(sys.stderr))
    sys.exit(run(sys.argv[1:]))


def of_system(error: OSError) -> CloisterError:
    """Turns an error of the operating system into one with our exit code."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return NetworkError(
            f"the connection failed ({error}); check that the other side is running"
        )
    return bad_file(error)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; bad input never gives a traceback.

    Control characters in any printed text are made harmless (`cli.streams`).
    """
    with printing():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        code = command_line()(args=arguments, prog_name="cloister", standalone_mode=False)
    except CloisterError as error:
        say_error("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return error.exit_code
    except BrokenPipeError:  # the reader of the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CloisterError.exit_code
    except (
        OSError
    ) as error:  # ConnectionError and timeouts are network errors, all others file errors
        known = of_system(error)
        say_error(str(known))
        return known.exit_code
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        say_error(str(bad_file(error)))
        return BadFileError.exit_code
    except click.exceptions.ClickException as error:
        error.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        say_error("interrupted")
        return CloisterError.exit_code
    if code == _TYPERS_INTERRUPT:
        say_error("interrupted")
        return CloisterError.exit_code
    return code if isinstance(code, int) else 0
