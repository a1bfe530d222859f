"""Writes a finished model in one or several formats; checks and measures each before it appears."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from cloister.errors import BadFileError, UsageError
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.card_page import PAGE, SizeBar, card_page
from cloister.export.forms.card import form_card
from cloister.export.forms.finished import Finished, open_finished, probe_batches
from cloister.export.forms.measuring import FormRow, difference, latency, score, size_of
from cloister.export.forms.public_test import PublicTest, public_test
from cloister.export.forms.table import FORMS, Form, check_fits, form_of
from cloister.files import bad_file
from cloister.staging import staging

# Largest allowed difference of an exact form's logits, relative to the largest logit or to 1. A
# float32 operation errs by 2⁻²⁴; sums over a base's width and depth in another order differ by
# some hundred times as much.
CLOSE = 1e-4
# The name of the study's own network in the table of measurements.
TRAINED = "as trained"
FACTS = "export.json"


@dataclass(frozen=True, kw_only=True)
class Export:
    """The result of an export.

    Attributes:
        folders: The folder of each format.
        rows: The measurements; the first row is the study's own network.
        metric: Name of the metric in `score`.
        test: The records that were scored, in words; None: nothing was scored.
    """

    folders: dict[str, Path]
    rows: tuple[FormRow, ...]
    metric: str
    test: str | None


def export_model(
    run: str | Path,
    formats: str | Sequence[str],
    out: str | Path,
    *,
    base: str | None = None,
    test: str | Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Export:
    """Writes a finished run's model for systems without Cloister.

    Args:
        run: A finished run's folder, or an adapter's.
        formats: One of `FORMS`, or several.
        out: A new folder. One format's files are written into it; of several, each gets its own
            folder inside.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        test: A file of public records to score; None: the run's public test set, if any.
        on_stage: Called with the name of each stage when it begins.

    Returns:
        The folders, and size, latency and score of each form.

    Raises:
        UsageError: A format is unknown or cannot hold this model (the message names those that
            can), a package is missing, or the folder exists already.
        RefusedError: `test` holds the study's private records, or a form does not compute what the
            study's network computes.
        BadFileError: There is no finished adapter, or a file cannot be read or written.
        ModelFileError: The base is missing or not the one that was trained on.

    Guarantees:
        A file that is known to hold the study's private records is not scored. The folder is there
        whole or not at all. An exact form's logits are within 1e-4 of the study's, relative to the
        largest, on built-in sentences.
    """
    names = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    if not names:
        raise UsageError(f"no format given; choose from {', '.join(FORMS)}")
    forms = {name: form_of(name) for name in names}
    say = on_stage or (lambda stage: None)
    target = Path(out)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already and is not overwritten; choose another --out")
    say("loading the base model")
    finished = open_finished(Path(run), base)
    check_fits(finished, names)
    public = public_test(finished, None if test is None else Path(test))
    say("measuring the adapter on its base")
    with torch.no_grad():
        inputs = [finished.network.inputs(batch) for batch in probe_batches(finished)]
        expected = [finished.logits(one) for one in inputs]
    rows = [_trained(finished, public)]
    facts = _facts(finished)
    with staging(target, "exported") as stage:
        inside = stage / "forms"
        for name, form in forms.items():
            say(f"writing {name}")
            folder = inside / name if len(forms) > 1 else inside
            folder.mkdir(parents=True)
            _write(finished, name, form, folder)
            rows.append(_row(finished, name, form, folder, expected, public))
        bars = [_bar(row, finished.task.primary_metric) for row in rows]
        for name, form in forms.items():
            folder = inside / name if len(forms) > 1 else inside
            document = {**facts, "format": name, **_table(finished, rows, public)}
            (folder / FACTS).write_text(json.dumps(document, indent=2), encoding="utf-8")
            card = form_card(finished, name, form, rows, public)
            (folder / "README.md").write_text(card, encoding="utf-8")
            (folder / PAGE).write_text(card_page(card, bars), encoding="utf-8")
        try:
            inside.rename(target)
        except OSError as error:
            raise bad_file(error, "written") from error
    folders = {name: target / name if len(forms) > 1 else target for name in forms}
    where = None if public is None else public.words
    return Export(
        folders=folders, rows=tuple(rows), metric=finished.task.primary_metric, test=where
    )


def _write(finished: Finished, name: str, form: Form, folder: Path) -> None:
    try:
        form.write(finished, folder)
    except SafetensorError as error:  # for example, the disk is full
        raise BadFileError(f"{folder}: weights cannot be written ({error})") from error
    except ValueError as error:  # a library does not support something
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = finished.network.base.config.model_type
        raise UsageError(
            f"--format {name}: this {kind} cannot be written ({first}); choose another format"
        ) from error


def _trained(finished: Finished, public: PublicTest | None) -> FormRow:
    weights = sum(p.stat().st_size for p in finished.workspace.folder.glob("*.safetensors"))
    return FormRow(
        form=TRAINED,
        bytes=size_of(finished.folder) + weights,
        milliseconds=latency(finished, finished.logits),
        score=None if public is None else score(finished, finished.logits, public.examples),
        difference=0.0,
    )


def _row(
    finished: Finished,
    name: str,
    form: Form,
    folder: Path,
    expected: Sequence[torch.Tensor],
    public: PublicTest | None,
) -> FormRow:
    size = size_of(folder)
    if form.read is None:
        return FormRow(form=name, bytes=size, milliseconds=None, score=None, difference=None)
    logits = form.read(finished, folder)
    gap = difference(finished, expected, logits)
    if form.is_exact and not gap <= CLOSE:
        kind = finished.network.base.config.model_type
        shutil.rmtree(folder)
        raise UsageError(
            f"--format {name}: the written {kind} gives other logits than the study's network (a "
            f"difference of {gap:.1e} of the largest; rounding explains at most {CLOSE:g}), so it "
            "is not written; choose another format, and report this architecture"
        )
    return FormRow(
        form=name,
        bytes=size,
        milliseconds=latency(finished, logits),
        score=None if public is None else score(finished, logits, public.examples),
        difference=gap,
    )


def _bar(row: FormRow, metric: str) -> SizeBar:
    figures = [f"{row.bytes / 1e6:.1f} MB"]
    if row.score is not None:
        figures.append(f"{metric} {row.score:.3f}")
    if row.milliseconds is not None:
        figures.append(f"{row.milliseconds:.1f} ms")
    return SizeBar(row.form, row.bytes, " · ".join(figures))


def _facts(finished: Finished) -> dict[str, object]:
    return {
        "version": 1,
        "adapter_sha256": adapter_sha256(adapter_files(finished.folder)),
        "base": finished.about.model.base,
        "base_sha256": finished.workspace.base_sha256,
        "task": finished.task.kind,
        "labels": list(finished.task.labels),
        "max_length": finished.task.max_length,
    }


def _table(
    finished: Finished, rows: Sequence[FormRow], public: PublicTest | None
) -> dict[str, object]:
    return {
        "metric": finished.task.primary_metric,
        "scored_on": None if public is None else public.words,
        "threads": torch.get_num_threads(),
        "forms": [asdict(row) for row in rows],
    }
