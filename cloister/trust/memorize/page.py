"""Writes the page of a report on memorization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from cloister.ledger.stated import Stated
from cloister.report_page import heading, page, paragraph, table
from cloister.trust.attack.page import figure
from cloister.trust.charts import whiskers
from cloister.trust.memorize.measured import CanariesFound, ExtractionRow, Reproduced


def memorization_page(
    title: str,
    about: str,
    canaries: Mapping[str, CanariesFound],
    stated: Stated | None,
    extraction: Sequence[ExtractionRow],
    reproduced: Sequence[Reproduced],
    private: str | None,
) -> str:
    """Returns the page of a report on memorization as HTML.

    Args:
        title: The page's title.
        about: The model and the seed, in a sentence.
        canaries: The figures of canaries, by model.
        stated: The study's promise; None: it is not known, or there is none.
        extraction: The figures of extraction, by model and kind of record.
        reproduced: Private replies that the model continues, which the page quotes.
        private: The private records that the page quotes, in words; None: none.
    """
    body = [paragraph(about)]
    if private is not None:
        body.append(paragraph(f"This page quotes {private}: keep it where they are.", "loud"))
    for name, found in canaries.items():
        body += _canaries(name, found, stated if found.most_exposure is not None else None)
    if extraction:
        body += _extraction(extraction)
    if reproduced:
        body.append(heading("Replies that the model continues word for word"))
        body += [
            f'<div class="card"><p class=soft>… {escape(one.given)}</p><p>{escape(one.wanted)}</p>'
            "</div>"
            for one in reproduced
        ]
    body.append(heading("What this does not show"))
    body.append(
        paragraph(
            "Canaries and attempts are samples: a model that shows nothing here may have memorized "
            "other text, and another attack may find more. Only the promised ε bounds every attack."
        )
    )
    return page(title, body)


def _canaries(name: str, found: CanariesFound, stated: Stated | None) -> list[str]:
    rows = [("planted", found.planted), ("kept out", found.kept_out)]
    known = [(which, one) for which, one in rows if one is not None]
    body = [
        heading(f"Planted canaries: {name}"),
        paragraph(
            f"{found.counts[0]} canaries were planted and {found.counts[1]} kept out, by a fair "
            f"coin. The secret of each is ranked among {found.others:,} other numbers of 10^"
            f"{found.digits}. Exposure measures its rank in bits: {found.chance:.2f} on average by "
            f"chance, {found.largest:.2f} at most here."
        ),
        whiskers(known, "mean exposure in bits, 95 % interval"),
    ]
    columns = ["secret is among", "planted", "kept out", "by chance"]
    columns += [] if stated is None else ["ε allows at most"]
    cells = [
        (
            f"the likeliest {one.share:.0%}",
            figure(one.planted),
            figure(one.kept_out),
            f"{one.share:.3f}",
            *([] if one.most is None else [f"{one.most:.3f}"]),
        )
        for one in found.shares
    ]
    body.append(table(columns, cells, len(columns) - 1))
    if stated is None:
        body.append(paragraph("This model has no known promised ε to compare with.", "soft"))
        return body
    assert found.most_exposure is not None
    body.append(
        paragraph(
            f"The study promises {stated}. So any attack on a planted secret succeeds with at most "
            "the probability in the last column, and the mean exposure is at most "
            f"{found.most_exposure:.2f} bits. An interval far above its bound would be a reason to "
            "doubt the promise; one of twenty such intervals misses by chance."
        )
    )
    if found.bound is not None:
        body.append(
            paragraph(
                f"By the audit's test of one run these {found.bound.canaries} canaries show "
                + (
                    f"ε of at least {found.bound.epsilon:.2f}"
                    if found.bound.epsilon
                    else "no lower bound on ε"
                )
                + f" (at 99.9 %); if every guess were right they would show {found.bound.most:.2f}."
                " cloister audit run plants thousands of stronger canaries inside of training.",
                "soft",
            )
        )
    return body


def _extraction(rows: Sequence[ExtractionRow]) -> list[str]:
    first = rows[0]
    sampled = [f"any of {first.samples} samples"] if first.samples else []
    columns = ["model", "records", "number", "tokens right", "all, greedy", *sampled]
    cells = [
        (
            row.model,
            row.records,
            str(row.count),
            figure(row.right),
            figure(row.greedy),
            *([figure(row.sampled)] if first.samples else []),
        )
        for row in rows
    ]
    return [
        heading("Replies continued"),
        paragraph(
            f"The model reads a record up to the last {first.tokens} tokens of its reply. Tokens "
            "right: the share before its first other token, by greedy decoding. All: it gives each "
            "of them."
        ),
        table(columns, cells, len(columns) - 2),
        paragraph(
            "Replies that the base continues too, and continued public records, on which no model "
            "was trained, are predictable and not memorized.",
            "soft",
        ),
    ]
