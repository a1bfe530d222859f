"""A check finds the planted faults of Chinese and English files, and names them."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cloister.data.check.page import page, write_page
from cloister.data.check.report import CheckOptions, CheckReport, check_file
from cloister.errors import DataError, UsageError

ZH = [f"病人说这几天头痛得很厉害，第{n}次来看病，吃了药也没有好。" for n in "一二三四五六"]
EN = [
    "The patient has had a headache for three days and took two tablets.",
    "Delivery was quick and the food was still warm when it arrived.",
    "My card was charged twice for one purchase, please refund me.",
    "She complained of chest pain that began after climbing the stairs.",
]
UNLIKE = "Completely different words about sailing boats in the winter harbour."


def put(tmp_path: Path, rows: Sequence[dict[str, Any]], name: str = "notes.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def codes(report: CheckReport) -> dict[str, tuple[int, list[int]]]:
    return {f.code: (f.count, f.rows) for f in report.findings}


def look(path: Path, **options: Any) -> CheckReport:
    return check_file(path, CheckOptions(**options))


def test_a_clean_file_has_no_findings(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(EN)]
    report = look(put(tmp_path, rows))
    assert report.findings == []
    assert report.roles.columns() == {"text": "text", "label": "label"}
    assert report.sections["languages"]["counts"] == {"en": 4}
    assert report.sections["labels"]["counts"] == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("  \n", "empty-text"),
        ("fever " * 2000, "long-text"),
        ("caf\ufffd with a lost letter", "lost-characters"),
        ("锟斤拷锟斤拷 头痛", "lost-characters"),
        ("<p>fever</p> since Monday", "html"),
        ("fever\u200bsince Monday", "control-characters"),
        ("ＭＲＩ　检查", "full-width"),
        ("fever &amp; chills", "html-entities"),
        ("cafe\u0301 au lait", "not-nfc"),
        (5, "unusable-row"),
    ],
)
def test_a_text_that_looks_wrong_is_named_with_its_row(
    tmp_path: Path, text: object, code: str
) -> None:
    rows: list[dict[str, Any]] = [{"text": each, "label": "a"} for each in EN]
    rows[2]["text"] = text
    found = codes(look(put(tmp_path, rows), columns={"text": "text", "label": "label"}))
    assert found[code] == (1, [3])


def test_suspicious_labels_are_named(tmp_path: Path) -> None:
    labels = ["Cardiology"] * 30 + ["cardiology ", "ＣＡＲＤＩＯＬＯＧＹ", "cardiolgy"]
    labels += ["N/A", "", "B1", "B2", "B2", "B1"]
    rows = [{"text": f"{UNLIKE} {n}", "label": label} for n, label in enumerate(labels)]
    report = look(put(tmp_path, rows), near=False)
    messages = [str(finding) for finding in report.findings]
    for part in (
        "'Cardiology' (30), 'cardiology ' (1), 'ＣＡＲＤＩＯＬＯＧＹ' (1) differ only by case",
        "'cardiolgy' (1) are nearly equal",
        "'N/A' looks like a missing value",
        "rows have no label",
        "the most frequent label has 30 times the records of the rarest",
        "'cardiolgy' occurs once",
    ):
        assert any(part in message for message in messages), part
    assert not any("'B1'" in message and "'B2'" in message for message in messages)


def test_duplicates_exact_near_and_with_another_label(tmp_path: Path) -> None:
    texts = [*EN, EN[0], EN[0].replace("two", "2"), ZH[0], ZH[0] + "！", EN[1]]
    rows = [{"text": text, "label": "ab"[n == 8]} for n, text in enumerate(texts)]
    report = look(put(tmp_path, rows))
    assert report.sections["duplicates"] == {
        "exact": 2,
        "near": 2,
        "near_sought": True,
        "same_text_other_label": 1,
    }
    assert look(put(tmp_path, rows), near=False).sections["duplicates"]["near"] == 0


def test_what_train_and_test_share_is_counted(tmp_path: Path) -> None:
    train = [{"text": text, "label": "a", "patient": str(n)} for n, text in enumerate(EN)]
    test = [
        {"text": EN[0], "label": "a", "patient": "0"},
        {"text": EN[1] + "!", "label": "b", "patient": "9"},
        {"text": UNLIKE, "label": "b", "patient": "3"},
    ]
    expected = {"exact": 1, "near": 1, "persons": 2}
    report = look(put(tmp_path, train), test=put(tmp_path, test, "test.jsonl"))
    assert report.sections["leakage"] == [
        {"of": "test.jsonl", "in": "notes.jsonl", **expected},
    ]
    assert report.rows == 4
    both = [row | {"part": "train"} for row in train] + [row | {"part": "dev"} for row in test]
    report = look(put(tmp_path, both), columns={"split": "part"})
    assert report.sections["leakage"] == [{"of": "dev", "in": "train", **expected}]
    assert [f.count for f in report.findings if f.code == "leakage"] == [1, 1, 2]
    with pytest.raises(UsageError, match="give only one"):
        look(put(tmp_path, both), columns={"split": "part"}, test=tmp_path / "test.jsonl")


def test_units_and_identifiers(tmp_path: Path) -> None:
    persons = ["1", "1", "2", None, "NA", "NA", "NA", "NA", "NA"]
    rows = [
        {"text": f"{UNLIKE} {n}", "label": "a", "patient": person, "key": str(n // 2 * 2)}
        for n, person in enumerate(persons)
    ]
    columns = {"person": "patient", "id": "key"}
    report = look(put(tmp_path, rows), columns=columns, near=False)
    assert report.sections["units"]["units"] == 3
    assert report.sections["units"]["largest"][0] == {"person": "NA", "records": 5}
    found = codes(report)
    assert found["no-person"] == (1, [4])
    assert found["same-id"] == (4, [2, 4, 6, 8])
    assert any("looks like a missing value" in f.message for f in report.findings)


def test_tokens_and_what_a_maximal_length_cuts(tmp_path: Path) -> None:
    rows = [{"text": "a " * n, "label": "x"} for n in range(1, 11)]

    def count(texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    tokens = look(put(tmp_path, rows), count_tokens=count, max_length=8).sections["tokens"]
    assert (tokens["median"], tokens["p95"], tokens["longest"]) == (5, 10, 10)
    assert tokens["cuts"] == [
        {"max_length": 8, "texts_cut": 2, "tokens_cut": 3, "share_of_tokens_cut": 3 / 55}
    ]


@pytest.mark.parametrize(
    ("tags", "counts", "scheme"),
    [
        (["I-X", "I-X", "O", "I-Y"], {"X": 1, "Y": 1}, "IOB1 or IO"),
        (["I-X", "B-X", "I-X", "O"], {"X": 2}, "BIO (IOB2)"),  # IOB1, two side by side
        (["B-X", "L-X", "U-X", "U-Y"], {"X": 2, "Y": 1}, "BILOU"),
    ],
)
def test_an_entity_is_counted_whatever_letter_it_begins_with(
    tmp_path: Path, tags: list[str], counts: dict[str, int], scheme: str
) -> None:
    report = look(put(tmp_path, [{"tokens": [*"abcd"], "tags": tags}]), near=False)
    assert report.sections["labels"]["counts"] == counts
    assert report.sections["labels"]["scheme"] == scheme


def test_sentences_and_conversations_are_checked_too(tmp_path: Path) -> None:
    rows = [{"tokens": ["头", "痛"], "tags": ["B-X", "E-X"]}, {"tokens": ["a"], "tags": ["S-Y"]}]
    report = look(put(tmp_path, rows), near=False)
    assert report.roles.kind == "tokens"
    assert report.sections["labels"]["counts"] == {"X": 1, "Y": 1}
    assert report.sections["labels"]["scheme"] == "BIOES"
    assert look(put(tmp_path, rows[:1]), near=False).findings == []
    chats = [
        {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in zip(EN, ZH, strict=False)
    ]
    report = look(put(tmp_path, chats), near=False)
    assert (report.roles.kind, report.rows) == ("messages", 4)
    assert report.sections["texts"]["shortest"] == min(
        len(q) + 1 + len(a) for q, a in zip(EN, ZH, strict=False)
    )


@pytest.mark.parametrize(
    ("rows", "columns", "error", "message"),
    [
        ([{"text": "x"}], {"text": "txt"}, UsageError, "--text txt: no such column"),
        ([{"text": "x"}], {"text_b": "b"}, UsageError, "--text-b b: no such column"),
        ([{"n": 5}], {}, UsageError, "found no column of texts"),
        ([], {}, DataError, "empty"),
    ],
)
def test_what_cannot_be_checked_is_one_message(
    tmp_path: Path, rows: Any, columns: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        look(put(tmp_path, rows), columns=columns)


def test_a_separator_of_labels_without_a_column_of_them_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name it with --labels"):
        look(put(tmp_path, [{"text": "x", "label": "a;b"}]), label_separator=";")


def test_a_column_has_one_role_but_a_person_s_number_may_number_records(tmp_path: Path) -> None:
    file = put(tmp_path, [{"text": "x", "label": "a", "who": "p"}])
    with pytest.raises(UsageError, match="--label, --person: label given for both"):
        look(file, columns={"label": "label", "person": "label"})
    look(file, columns={"text": "text", "label": "label", "person": "who", "id": "who"})


def test_nothing_of_a_hostile_file_acts_in_the_page(tmp_path: Path) -> None:
    evil = "</svg><script>alert(1)</script>\u202e\x1b[31m\"'"
    rows = [{"text": evil, "label": evil, "patient": evil, evil: evil} for _ in range(3)]
    report = look(
        put(tmp_path, rows), columns={"text": "text", "label": "label", "person": "patient"}
    )
    shown = page(report)
    assert "<script" not in shown
    assert "</svg><" not in shown.replace("</svg><h2>", "").replace("</svg><p>", "")
    assert not {"\u202e", "\x1b"} & set(shown)
    assert "default-src 'none'" in shown
    out = tmp_path / "page.html"
    write_page(report, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="not overwritten"):
        write_page(report, out)
