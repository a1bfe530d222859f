"""`cloister model watch`: watches a finished model's stream of answers for drift and surges."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.errors import UsageError
from cloister.names import counted

if TYPE_CHECKING:
    from cloister.trust.intervals import Interval
    from cloister.watching.replayed_history import Replayed
    from cloister.watching.setup import Watch


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")],
    file: Annotated[
        Path,
        typer.Option(
            "--watch",
            metavar="FILE",
            help="Your watch file: source, reference, topics, and every address to which alerts "
            "may go.",
        ),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="End at the source's end; the state is kept.")
    ] = False,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replay this file from an empty state, count, and send nothing. With --events.",
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='What happened in --history, a line each: {"kind": "surge", "key": TOPIC, '
            '"start": …, "end": …}.',
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Watch a stream of predictions: drift, surges of a topic, alerts, metrics and a page.

    Every address is in the watch file; figures of private records go nowhere else. SIGTERM and
    Ctrl-C end the watch, and the next start goes on from there.

    Example: cloister model watch runs/bank --watch watch.toml
    """
    from cloister.watching.history_events import read_events
    from cloister.watching.replayed_history import replay
    from cloister.watching.setup import open_watch
    from cloister.watching.watch_file import read_watch_file

    if (history is None) != (events is None):
        raise UsageError("--history and --events: give both or none; an empty file has no events")
    read = read_watch_file(file)
    happened = None if events is None else read_events(events)
    opened = open_watch(run, read)
    for method, why in opened.unfit.items():
        typer.echo(f"not measured: {method}: {why}", err=True)
    if history is not None and happened is not None:
        replayed = replay(opened, history, happened)
        if as_json:
            typer.echo(json.dumps(replayed.to_json(), ensure_ascii=False))
        else:
            _show(replayed)
        return
    report = _run(opened, once=once)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    totals = counted(report["rows"], "row"), counted(len(report["alerts"]), "alert")
    typer.echo(f"{totals[0]}, {totals[1]}: {read.folder / 'index.html'}")


def _run(watch: Watch, *, once: bool) -> dict[str, Any]:
    import signal

    from cloister.stopping import Stop
    from cloister.watching.addresses import NOT_NOISED
    from cloister.watching.listening import Listener, PostedRows, make_app
    from cloister.watching.running import Shell, first_state, run_watch
    from cloister.watching.shown import Shown
    from cloister.watching.state_file import opened_folder, read_state

    file, stop = watch.file, Stop()

    def say(text: str) -> None:
        typer.echo(text, err=True)

    if once and file.source.kind == "http":
        raise UsageError('--once: the source kind = "http" has no end; leave it out')
    for host in file.outside:
        say(f"alerts go to {host}, as {file.path} says: {NOT_NOISED}")
    with ExitStack() as stack:
        stack.enter_context(opened_folder(file.folder))
        state = first_state(watch, read_state(file.folder), say)
        posted = PostedRows() if file.source.kind == "http" else None
        shown = Shown()
        if (place := file.listens) is not None:
            from cloister.cli.dashboard import listen

            listening = stack.enter_context(listen(place.host, place.port))
            stack.callback(Listener(make_app(shown, posted), listening).close)
            port = listening.getsockname()[1]
            say(f"http://{place.host}:{port}/ (/metrics, /report.json; Ctrl-C ends it)")
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.signal(number, lambda *_: stop.set())
            stack.callback(signal.signal, number, before)
        source = posted or _source(watch, state, once=once)
        return run_watch(watch, state, source, shown, Shell(say, stop.is_set))


def _source(watch: Watch, state: Any, *, once: bool) -> Any:
    import sys

    from cloister.watching.file_tail import FileTail
    from cloister.watching.pipe import Pipe

    file = watch.file
    if file.source.kind == "stdin":
        return Pipe(sys.stdin.buffer)
    assert file.source.file is not None
    return FileTail(file.place(file.source.file), state.mark, follow=not once)


def _show(replayed: Replayed) -> None:
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    table = Table(box=None, header_style="bold")
    for column in (
        "kind",
        "events",
        "detected (95 %)",
        "median delay",
        "false alarms",
        "a calm day",
    ):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for one in replayed.tallies:
        delay = "–" if one.delay is None else f"{one.delay.value / 60:.0f} min"
        table.add_row(
            one.kind,
            str(one.events),
            f"{one.detected}: {_told(one.found)}",
            delay,
            f"{one.false_alarms} in {one.calm_days:.1f} days",
            _told(one.rate),
        )
    Terminal().print(table)
    if replayed.refused.count:
        typer.echo(
            f"{counted(replayed.refused.count, 'line')} of the history are no rows", err=True
        )


def _told(one: Interval | None) -> str:
    return "–" if one is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
