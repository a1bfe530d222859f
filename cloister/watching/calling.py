"""Watches from Python: one pass over a source's new rows, and the replay of a history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.errors import UsageError
from cloister.watching.file_tail import FileTail
from cloister.watching.history_events import read_events
from cloister.watching.replayed_history import Replayed, replay
from cloister.watching.running import Shell, first_state, run_watch
from cloister.watching.setup import open_watch
from cloister.watching.shown import Shown
from cloister.watching.state_file import opened_folder, read_state
from cloister.watching.watch_file import read_watch_file


@dataclass(frozen=True)
class WatchReport:
    """The result of a watch's pass.

    Attributes:
        folder: The folder with `index.html`, `report.json` and the state.
        document: The content of `report.json`.
    """

    folder: Path
    document: Mapping[str, Any]


def watch_model(
    run: str | Path, file: str | Path, *, on_message: Callable[[str], None] | None = None
) -> WatchReport:
    """Watches a file of predictions up to its end; the next call continues from there.

    Args:
        run: A finished run's folder, or an adapter's.
        file: The watch file, whose source is a file; it names every address that alerts go to.
        on_message: Is called with messages for the operator; None: it is not called.

    Returns:
        Drift of each feature, surges of each topic, alerts, and what is not measured and why.

    Raises:
        UsageError: The source is not a file, the task is a plug-in's, a topic counts an answer
            that the model never gives, or another process uses the folder.
        RecipeError: The watch file is invalid.
        DataError: The reference is missing, or does not have the stream's form.
        BadFileError: There is no adapter, or a file cannot be read or written.

    Guarantees:
        Figures only go to addresses in the watch file; see `run_watch` for restarts.
    """
    read = read_watch_file(Path(file))
    if read.source.kind != "file" or read.source.file is None:
        raise UsageError(f'{file}: source.kind: "{read.source.kind}" given; "file" is needed here')
    opened, say = open_watch(Path(run), read), on_message or (lambda message: None)
    with opened_folder(read.folder):
        state = first_state(opened, read_state(read.folder), say)
        source = FileTail(read.place(read.source.file), state.mark, follow=False)
        return WatchReport(read.folder, run_watch(opened, state, source, Shown(), Shell(say)))


def replay_history(
    run: str | Path, file: str | Path, history: str | Path, events: str | Path
) -> Replayed:
    """Replays a labelled history, and counts detections, delays and false alarms.

    Args:
        run: A finished run's folder, or an adapter's.
        file: The watch file, which names a column of times.
        history: A file of lines in the stream's form, in order of their times.
        events: A file of real events, one JSON object per line: kind, key, start, end.

    Returns:
        The counts of each kind, with intervals; nothing is sent or stored.

    Raises:
        UsageError: The watch file names no column of times.
        RecipeError: The watch file is invalid.
        DataError: A file cannot be read, or has another form.
        BadFileError: There is no adapter.
    """
    opened = open_watch(Path(run), read_watch_file(Path(file)))
    return replay(opened, Path(history), read_events(Path(events)))
