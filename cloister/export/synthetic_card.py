"""The card of a file of synthetic records: what they are, what they promise, how they were made."""

from __future__ import annotations

from cloister.export.synthetic_facts import SyntheticFacts
from cloister.ledger.stated import Stated

# What the front matter says where nobody named a license: only its publisher can.
NO_LICENSE = "not stated: ask whoever gave you the file"


def synthetic_card(facts: SyntheticFacts) -> str:
    """Returns the card in Markdown, with the front matter that data hubs read."""
    private = "- differential-privacy\n" if facts.largest is not None else ""
    head = f"---\ntags:\n- synthetic\n- cloister\n{private}---\n\n"
    return head + "\n".join(
        [
            f"# {facts.file}\n",
            _what(facts),
            _privacy(facts),
            _origin_of_votes(facts) if facts.voted else _origin(facts),
            _sampling(facts),
            _limits(),
        ]
    )


def _what(facts: SyntheticFacts) -> str:
    if facts.voted:
        return (
            f"{facts.records:,} synthetic records of {facts.created}: public texts, and what a "
            f"public language model made of them, chosen by the votes of the study {facts.study}. "
            "No private record was given to a model, and none is in the file unless it was public "
            "before.\n"
        )
    return (
        f"{facts.records:,} synthetic records, written on {facts.created} by a language model "
        f"that the study {facts.study} fine-tuned. No record is a copy that somebody chose; a "
        "model can still repeat what it read, within the bounds of its ε.\n"
    )


def promise_words(facts: SyntheticFacts) -> str:
    """Returns the promise in a sentence or two, without the last full stop, with everything that
    an ε needs.

    If the sites shared the noise, it has both ε: the promised one, and that against all others.
    """
    unknown = sorted(site for site, one in facts.promises.items() if one is None)
    if facts.voted and unknown:
        return (
            f"ε = ∞: no certificate came of {', '.join(unknown)}, so what was promised there is "
            "not known"
        )
    if facts.largest is None and facts.voted:
        return "ε = ∞: a site's votes were charged without a finite ε"
    if facts.largest is None:
        return (
            "ε = ∞: the model was trained without privacy at a site, or a site's certificate is "
            "missing, so nothing is promised about any record"
        )
    alone = facts.largest_alone
    if alone is None:
        return f"at each site at most {facts.largest}"
    return (
        f"at each site at most {facts.largest}. The sites shared the noise. If all others work "
        f"together: at most {alone}"
    )


def _privacy(facts: SyntheticFacts) -> str:
    lines = ["## Privacy\n", f"Promised: {promise_words(facts)}.\n"]
    lines += _by_site(facts)
    if facts.voted:
        rounds = [f"{site} in {number}" for site, number in sorted(facts.voted.items())]
        lines += [
            f"Voted: {', '.join(rounds)} rounds. Each unit of a site's private records has one "
            "vote in a round, for the nearest texts; a person's is split among the person's "
            "records. Each site adds noise to every count and charges its ledger before a record "
            "is read. All else is made of these counts and public texts: post-processing (Dwork & "
            "Roth 2014, proposition 2.1). So the promise holds for the file, for what is trained "
            "on it, and for whoever sees it. Other studies on the same records add up.\n",
        ]
        return "\n".join(lines)
    lines += [
        "The records were drawn from the model alone, and no private record was read: "
        "post-processing (Dwork & Roth 2014, proposition 2.1). So the promise of the model holds "
        "for any number of records, for what is trained on them, and for whoever sees them. It "
        "is about units of the private records. Several files of one model cost no more than one; "
        "files of models from different studies on the same records add up. Certificates were "
        "checked by the keys that they name; whose keys these are was not.\n",
    ]
    return "\n".join(lines)


def _by_site(facts: SyntheticFacts) -> list[str]:
    """Returns the table of the sites' promises; empty if no site is known."""
    if not facts.promises:
        return []
    sites = sorted(facts.promises.items())
    if not facts.alone:
        rows = [f"| {site} | {_cell(one)} |" for site, one in sites]
        return ["| site | promise |", "|---|---|", *rows, ""]
    return [
        "| site | promise | against all other sites together |",
        "|---|---|---|",
        *(
            f"| {site} | {_cell(one)} | {_cell(facts.alone.get(site, one))} |"
            for site, one in sites
        ),
        "",
    ]


def _cell(one: Stated | None) -> str:
    return "not known: no certificate" if one is None else str(one).replace("|", "\\|")


def _origin(facts: SyntheticFacts) -> str:
    public = f"; the public file {facts.public} trained it too" if facts.public else ""
    sites = ", ".join(sorted(facts.promises)) or "sites that are not known"
    recipe = f"; recipe {facts.digest[:16]}…" if facts.digest else ""
    return (
        "## Origin\n\n"
        f"- base: `{facts.base}`, SHA-256 `{facts.base_sha256}`; what it read before, only its "
        "publisher knows, and no ε covers it\n"
        f"- adapter: SHA-256 `{facts.adapter_sha256}`, of the study {facts.study}{recipe}{public}\n"
        f"- private records: those of {sites}; they stayed there\n"
        f"- this file: SHA-256 `{facts.sha256}`\n"
    )


def _origin_of_votes(facts: SyntheticFacts) -> str:
    generator = (
        f"`{facts.base}`, SHA-256 `{facts.base_sha256}`; what it read before, only its publisher "
        "knows, and no ε covers it"
        if facts.base
        else "none: the records are public texts as they were"
    )
    return (
        "## Origin\n\n"
        f"- first candidates: the public file {facts.public}\n"
        f"- generator: {generator}\n"
        f"- votes: the study {facts.study}; SHA-256 {facts.digest[:16]}…\n"
        f"- private records: those of {', '.join(sorted(facts.promises))}; they stayed there\n"
        f"- this file: SHA-256 `{facts.sha256}`\n"
    )


def _sampling(facts: SyntheticFacts) -> str:
    drawn = [f"- {name}: {value}" for name, value in facts.sampling.items()]
    left = [f"- left out, {reason}: {number:,}" for reason, number in facts.dropped.items()]
    return "\n".join(
        [
            "## How they were made\n" if facts.voted else "## How they were drawn\n",
            *drawn,
            *left,
            "",
        ]
    )


def _limits() -> str:
    return (
        "## Limits\n\n"
        "Nobody checked whether the records are true, fair or useful: measure what is trained on "
        "them on real test records. Rare groups of the private records are rarer here, or "
        "missing: differential privacy hides what few records say.\n"
    )
