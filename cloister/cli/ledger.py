"""`cloister ledger`: shows and checks a site's ledger, and exports its head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Read and check a site's privacy ledger.", no_args_is_help=True)

LedgerPath = Annotated[Path, typer.Argument(metavar="LEDGER", help="A site's ledger file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("show")
def show(ledger: LedgerPath, as_json: AsJson = False) -> None:
    """Show every charge and release, and the promised and spent ε.

    Example: cloister ledger show runs/bank/ledgers/site-1.ledger
    """
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.ledger.history import History
    from cloister.ledger.replay import charged_rounds
    from cloister.ledger.stated import of_budget, promise, shown

    stored = _entries(ledger)
    entries = [entry.fields for entry in stored]
    if as_json:
        typer.echo(json.dumps({"ledger": str(ledger), "entries": entries}))
        return
    history = History()
    for entry in stored:
        history.add(entry)
    console = Terminal()
    stated = (of_budget(history.budget, history.unit, history.plans.values()), promise(history))
    console.print(  # before a study, the budget is the promise
        "\n".join([*dict.fromkeys(map(str, stated)), f"signed by {history.public_key}"]),
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold")
    for column in ("study", "round", "steps", "noise", "rate", "spent so far: ε", "δ", "released"):
        table.add_column(column, justify="left" if column == "study" else "right")
    for charged in charged_rounds(stored, history):
        out, event = charged.release, charged.event
        table.add_row(
            charged.study[:10],
            charged.label,
            str(event.steps),
            f"{event.noise_multiplier:g}",
            f"{event.sample_rate:.4g}",
            "" if charged.epsilon_pld is None else shown(charged.epsilon_pld),
            f"{charged.delta:g}",
            f"{out.bytes:,} B {out.sha256[:8]}" if out else "cut off",
        )
    console.print(table)
    console.print(
        "Spent so far is an indication by PLD, not a promise. Cut off: charged, then interrupted; "
        "nothing was sent, and the cost stays.",
        highlight=False,
    )


@app.command("verify")
def verify(
    ledger: LedgerPath,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file with an earlier head of this ledger (export --head); may be repeated."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The site's public key in hex, from another source.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check chain, signatures and budget, and recompute ε by two accountants.

    Example: cloister ledger verify site.ledger --anchor head.json
    """
    from cloister.errors import LedgerError
    from cloister.ledger.anchor import read_anchor
    from cloister.ledger.stated import COUPLED, shown
    from cloister.ledger.verify import verify
    from cloister.names import counted

    anchors = [read_anchor(path) for path in anchor or []]
    verdict = verify(
        _entries(ledger), str(ledger), public_key=key, anchors=[a.head for a in anchors]
    )
    if any(a.key != verdict.public_key for a in anchors):
        raise LedgerError(f"{ledger}: an anchor belongs to another site's ledger")
    alone = verdict.promise_alone
    if as_json:
        document = _verdict_json(ledger, verdict) | {"anchors": len(anchors)}
        typer.echo(json.dumps(document))
        return
    typer.echo(
        f"{ledger}: valid. {verdict.charged} charged "
        f"({counted(verdict.history.training_steps, 'training step')}), "
        f"{verdict.releases} released.\n"
        f"{verdict.promise}.\n"
        + (f"{alone}.\n" if alone else "")
        + (f"{COUPLED[0].upper()}{COUPLED[1:]}.\n" if verdict.history.couples_units else "")
        + f"{verdict.of_budget}.\n"
        f"The charges give ε = {shown(verdict.epsilon_pld)} by PLD and "
        f"{shown(verdict.epsilon_rdp)} by RDP at δ = {verdict.delta:g}, as they state.\n"
        f"Every entry is signed by {verdict.public_key}"
        + ("." if key else ", which only the ledger itself names (--key checks it).")
        + (
            f"\nIt continues {len(anchors)} earlier head(s)."
            if anchors
            else "\nNo earlier head was given, so missing last entries would not show (--anchor)."
        )
    )


@app.command("export")
def export(
    ledger: LedgerPath,
    head: Annotated[
        bool,
        typer.Option(
            "--head",
            help="Write only the signed head (last entry's number and hash), for others to keep.",
        ),
    ] = False,
    countersign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="LEDGER is a head file: add this key's signature."),
    ] = None,
) -> None:
    """Print all entries with their signatures, or the head, as JSON.

    Example: cloister ledger export site.ledger --head > head.json
    """
    from cloister.ledger.anchor import anchor_of, read_anchor
    from cloister.ledger.anchor import countersign as add_witness
    from cloister.ledger.signing import load_key

    if countersign is not None:
        typer.echo(json.dumps(add_witness(read_anchor(ledger), load_key(countersign)).to_json()))
        return
    entries = _entries(ledger)
    if head:
        typer.echo(json.dumps(anchor_of(entries[-1], entries[0].fields["key"]).to_json()))
        return
    rows = [{"body": e.body.decode(), "signature": e.signature.hex()} for e in entries]
    typer.echo(json.dumps({"entries": rows}))


def _entries(ledger: Path) -> Any:
    from cloister.errors import LedgerError
    from cloister.ledger.storage import LedgerFile

    entries = LedgerFile(ledger).entries()
    if not entries:
        raise LedgerError(f"{ledger}: has no entries")
    return entries


def _verdict_json(ledger: Path, verdict: Any) -> dict[str, object]:
    from cloister.canonical import json_number

    alone = verdict.promise_alone
    return {
        "ledger": str(ledger),
        "sound": True,
        "seq": verdict.head.seq,
        "hash": verdict.head.hash,
        "key": verdict.public_key,
        "charges": verdict.charges,
        "releases": verdict.releases,
        "steps": verdict.history.training_steps,
        "evaluations": len(verdict.history.evaluations),
        "votes": len(verdict.history.votes),
        "promise": verdict.promise.to_json(),
        "promise_alone": alone and alone.to_json(),
        "couples_units": verdict.history.couples_units,
        "spent": verdict.spent.to_json(),
        "used": verdict.used.to_json(),
        "budget": {"epsilon": json_number(verdict.budget_epsilon), "delta": verdict.budget_delta},
        "recomputed": {
            "pld": json_number(verdict.epsilon_pld),
            "rdp": json_number(verdict.epsilon_rdp),
            "delta": verdict.delta,
        },
    }
