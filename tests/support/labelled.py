"""Labellings that tests start, continue and compare."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cloister.data.detected import detect_form
from cloister.labelling.log import LabelSettings
from cloister.labelling.opening import LabelRequest, open_labelling
from cloister.labelling.session import LabelSession

HOSTILE = '<script>document.title = "broken"</script><img src=x onerror="alert(1)"> & <b>bold</b>'
TEXTS = ("发烧三天，咳嗽", HOSTILE, "headache since Monday", "follow-up in May", "头晕")


def records(path: Path, texts: Sequence[str] = TEXTS, **columns: Any) -> Path:
    """A file of records, each of another person."""
    rows = [
        {"text": text, "person": f"p{at}", "day": at} | columns for at, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def opened(
    source: Path, out: Path, **asked: Any
) -> AbstractContextManager[tuple[LabelSession, LabelSettings]]:
    request = LabelRequest(**({"columns": {}} | asked))
    return open_labelling(detect_form(source), out, request)


def labelled(source: Path, out: Path, answers: Sequence[Any], **asked: Any) -> Path:
    """An annotator's file: an answer for each record from the first on; None skips one."""
    asked = {"labels": ("yes", "no")} | asked
    with opened(source, out, **asked) as (session, _):
        for place, answer in enumerate(answers):
            if answer is not None:
                session.answer(place, answer)
    return out


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
