"""Writes the README of a released adapter: its model card and its privacy card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloister.evidence.began import Began
from cloister.evidence.site_facts import SiteFacts
from cloister.export.card_began import Forgetting, began_section
from cloister.export.card_estimates import estimates_section
from cloister.export.card_loading import loading_section
from cloister.export.card_sections import (
    balance,
    data_by_site,
    drawn,
    evaluated,
    intended_use,
    limits,
    not_measured,
    unexamined,
)
from cloister.export.front_matter import front_matter
from cloister.export.guessing import guess_words, guessing, is_no_better
from cloister.export.snippets import Loading
from cloister.ledger.stated import COUPLED, Basis, Stated, shown
from cloister.models.config import Method
from cloister.privacy.central import CentralPlan
from cloister.privacy.estimated_scores import EvaluatedRound, SelectedRound
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.config import TaskKind


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of a model card.

    Attributes:
        name: The study.
        base: The base model, as the recipe names it.
        base_sha256: SHA-256 of its weights.
        kind: The task.
        labels: Names of the outputs.
        loading: How base and adapter are loaded.
        parameters: Number of trained parameters.
        rounds: Rounds closed.
        mode: How the study was federated, in words.
        metric: Name of the primary metric.
        test: Scores on the public test set.
        untrained: Scores before round 1; empty or None if they were not computed.
        plain_test: Scores of the same study without privacy; None: it was not run.
        majority: The score of one constant answer for every test record; None without labels.
        sites: By site, the facts that its certificate or ledger states; if there is neither, a
            text that says why.
        recipe_digest: Digest of the study's recipe.
        is_personal: Whether each site kept a part of its adapter private.
        central: The noise that the coordinator added; None: it added none.
        label_counts: How many records of the public test set have each label; empty: unknown.
        lexical: For retrieval: scores of a ranking by shared words.
        public: The public records that the coordinator trained on before round 1, in words; empty:
            there were none.
        began: The finished run with whose adapter the study began; None: none.
        old_test: Scores on an older public test set; None: none.
        evaluations: Estimates of the private evaluations, oldest first.
        selected: The round whose adapter this is by its score; None: the last.
    """

    name: str
    base: str
    base_sha256: str
    kind: TaskKind
    labels: Sequence[str]
    loading: Loading
    parameters: int
    rounds: int
    mode: str
    metric: str
    test: Mapping[str, float]
    plain_test: Mapping[str, float] | None
    majority: float | None
    sites: Mapping[str, SiteFacts | str]
    recipe_digest: str
    is_personal: bool = False
    central: CentralPlan | None = None
    untrained: Mapping[str, float | None] = field(default_factory=dict)
    label_counts: Mapping[str, int] = field(default_factory=dict)
    lexical: Mapping[str, float] = field(default_factory=dict)
    public: str = ""
    began: Began | None = None
    old_test: Forgetting | None = None
    evaluations: Sequence[EvaluatedRound] = ()
    selected: SelectedRound | None = None

    @property
    def known(self) -> dict[str, SiteFacts]:
        """Returns the sites whose promise is known."""
        return {name: one for name, one in self.sites.items() if isinstance(one, SiteFacts)}

    @property
    def unknown(self) -> dict[str, str]:
        """Returns the sites whose promise is not known, each with the reason."""
        return {name: why for name, why in self.sites.items() if isinstance(why, str)}


# The reason that a card gives for a deployed site without a certificate.
NO_CERTIFICATE = "no certificate, so what it was promised is not known"

# What a card calls an adapter, by method.
_KINDS: dict[Method, str] = {
    "lora": "A LoRA adapter",
    "bitfit": "A BitFit adapter (biases)",
    "ia3": "An IA³ adapter",
    "prompt": "A prompt (prompt tuning)",
    "prefix": "A prefix (prefix tuning)",
}

_PERSONAL = (
    "Each site kept its own B. This folder holds what they share, with B at zero: a start for a "
    "new site, and no model by itself. The scores are the mean over the sites' own adapters.\n"
)


def write_card(folder: Path, card: Card) -> None:
    """Writes `README.md` next to the adapter."""
    (folder / "README.md").write_text(render(card), encoding="utf-8")


def render(card: Card) -> str:
    """Renders the card as Markdown, with the front matter that model hubs read."""
    sections = [
        front_matter(
            base=card.base,
            library="peft",
            kind=card.kind,
            tags=[card.loading.method, "federated-learning"]
            + ["differential-privacy"] * _is_private(card),
            name=card.name,
            scores=card.test,
        ),
        f"# {card.name}\n",
        f"{_KINDS[card.loading.method]} for `{card.base}` ({card.kind}), trained by "
        f"{len(card.sites)} sites that kept their records: {card.rounds} rounds, {card.mode}, "
        f"{card.parameters:,} trained parameters.\n",
        *([f"{card.public}\n"] if card.public else []),
        *([_PERSONAL] if card.is_personal else []),
        intended_use(card.kind, card.labels),
        _scores(card),
        *([f"**Selected: {card.selected}.**\n"] if card.selected is not None else []),
        *estimates_section(card.evaluations, card.rounds, card.selected),
        _privacy(card),
        *began_section(card.began, card.old_test, card.sites, is_central=card.central is not None),
        limits(
            card.kind,
            card.loading.max_length,
            is_private=_is_private(card),
            has_test=bool(card.test),
        ),
        unexamined(),
        data_by_site({name: _known(one) for name, one in card.sites.items()}),
        not_measured(
            card.test,
            has_untrained=bool(card.untrained),
            has_twin=bool(card.plain_test),
            is_private=_is_private(card),
            is_evaluated=bool(card.evaluations),
        ),
        loading_section(card.loading),
        f"## Origin\n\n- base weights, SHA-256: `{card.base_sha256}`\n"
        f"- recipe, SHA-256: `{card.recipe_digest}`\n",
    ]
    return "\n".join(sections)


def _known(site: SiteFacts | str) -> str:
    """Returns what a site's certificate says about its records."""
    if isinstance(site, str):
        return f"Nothing is known about its records ({site})."
    sentences = [
        f"What is protected is one {_unit(plan)}; {drawn(plan)} with probability "
        f"{plan.sample_rate:.4g}, which the site declared and did not count."
        for plan in site.plans
    ]
    return " ".join(dict.fromkeys(sentences))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _scores(card: Card) -> str:
    if not card.test:
        return (
            "## Scores on the public test set\n\nNone: the study had no public test set. What the "
            "sites measured on records of their own is below.\n"
        )
    plain = card.plain_test
    columns: dict[str, Mapping[str, float | None]] = {"this adapter": card.test}
    if card.untrained:
        first = "untrained" if card.began is None else f"the adapter of `{card.began.run}`"
        if card.public:
            first = f"{first}, then public records alone"
        columns[f"{first}, before round 1"] = card.untrained
    if card.lexical:
        columns["TF-IDF, by shared words"] = card.lexical
    if plain:
        columns["same run without privacy, untuned"] = plain
    lines = [
        "## Scores on the public test set\n",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in card.test:
        cells = (_cell(column.get(name)) for column in columns.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if plain:
        lines.append(
            "\nThe run without privacy has this study's settings but for its learning rate. Tuned "
            "for itself it may score higher, so privacy cost at least the difference."
        )
    if card.majority is not None:
        lines.append(f"\n{guess_words(card.kind).capitalize()} scores {card.majority:.4f}.")
    if card.label_counts:
        lines.append(f"\n{balance(card.labels, card.label_counts)}")
    if is_no_better(card.test.get(card.metric), guessing(card.kind, card.majority)):
        lines.append("\n**This adapter scores no more: it has learnt nothing of use.**")
    if not plain and _is_private(card):
        lines.append("\nThe study was not run without privacy, so the cost of privacy is unknown.")
    return "\n".join(lines) + "\n"


def _is_private(card: Card) -> bool:
    """Whether every site is known to be promised a finite ε, in the run that it began with too."""
    promised = [one.promise.epsilon for one in card.known.values()]
    promised += [] if card.began is None else card.began.promised
    return not card.unknown and bool(promised) and all(math.isfinite(value) for value in promised)


def _privacy(card: Card) -> str:
    if any(math.isinf(one.promise.epsilon) for one in card.known.values()):
        return _no_privacy(card)
    missing = [f"- **{name}: {why}.**" for name, why in card.unknown.items()]
    lines = ["## Privacy\n"]
    if card.known:
        lines += [*_table(card.known), *_coupled(card.known), *_origin(card.known)]
    if missing:
        lines += ["These sites have no known promise:\n", *missing, ""]
    lines += [
        *_against(card.known),
        *_of_whole_sites(card),
        "A person with records at several sites, or several records at one where one record is "
        "what is protected, is protected less: their ε adds up.\n",
        "Not covered: the choice of hyper-parameters, labels and public test data; records that "
        "are not in the training sets; what an operator publishes beside this adapter.",
    ]
    return "\n".join(lines) + "\n"


def _no_privacy(card: Card) -> str:
    whole = _of_whole_sites(card)
    if not whole:
        return (
            "## Privacy\n\n**None: ε = ∞.** This adapter was trained without (complete) "
            "differential privacy; it may reveal the records it was trained on.\n"
        )
    lines = [
        "## Privacy\n",
        "**Against the coordinator: none, ε = ∞.** The sites sent updates without (complete) "
        "differential privacy, which may reveal their records.\n",
        *whole,
        "One record's ε is no larger than its site's.",
    ]
    return "\n".join(lines) + "\n"


def _table(known: Mapping[str, SiteFacts]) -> list[str]:
    lines = [
        "Each site states, by its own ledger, what it was promised: (ε, δ)-differential privacy "
        "for one unit added or removed.\n",
        "| site | ε promised | δ | one | of | noise multiplier | sample rate | steps a round | "
        "clip | ε of this study's rounds that ran (an indication) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for site, one in known.items():
        promise, spent = one.promise, one.spent
        for plan in one.plans:
            lines.append(
                f"| {site} | {shown(promise.epsilon, 3)} | {promise.delta:g} | {_unit(plan)} | "
                f"{_OF[promise.basis]} | {plan.noise_multiplier:g} | {plan.sample_rate:.4g} | "
                f"{plan.local_steps} | {_clip(plan)} | "
                f"{shown(spent.epsilon, 3)} at δ = {spent.delta:g} |"
            )
    plans = [plan for one in known.values() for plan in one.plans]
    return [*lines, *evaluated(plans)]


_OF = {
    Basis.WHOLE_PLAN: "the whole plan",
    Basis.LIFETIME_BUDGET: "all that the data set ever releases",
    Basis.SPENT_SO_FAR: "spent so far",
}


def _unit(plan: Plan) -> str:
    if plan.unit is Unit.RECORD:
        if plan.max_records == 1:
            return "record"
        return f"record, with at most {plan.max_records} rows made of it, copies among them"
    return f"person, with at most {plan.max_records} of its records"


def _clip(plan: Plan) -> str:
    return "none" if plan.max_grad_norm is None else f"{plan.max_grad_norm:g}"


def _coupled(known: Mapping[str, SiteFacts]) -> list[str]:
    """Names the sites whose data were prepared by a step that coupled units, which limits ε."""
    sites = [site for site, one in known.items() if one.couples_units]
    return [f"\n{', '.join(sites)}: {COUPLED}."] if sites else []


def _origin(known: Mapping[str, SiteFacts]) -> list[str]:
    """Explains what the figures mean and how to check them."""
    return [
        "",
        "The promise was fixed before anything was sent, and holds however early the study "
        "stopped: by privacy loss distributions (PLD) over all rounds of the plan, or, where a "
        "data set took part in more than one plan, by its lifetime budget. What the rounds that "
        "ran come to is an indication of how far they went, not a promise.\n",
        "The sites' ledgers, which `cloister ledger verify` checks, ended at:\n",
        *(f"- {site}: {one.ended}" for site, one in known.items()),
        "",
    ]


def _against(known: Mapping[str, SiteFacts]) -> list[str]:
    """States against which adversary the promised ε holds, and what holds against others."""
    lines = []
    for against in dict.fromkeys(one.promise.against for one in known.values()):
        sites = [site for site, one in known.items() if one.promise.against == against]
        where = "" if len(sites) == len(known) else f" at {', '.join(sites)}"
        lines.append(f"The promise{where} holds against {against}.\n")
    for plan in {p.sharing: p for one in known.values() for p in one.plans if p.sharing}.values():
        lines += _shared(plan, [one.promise_alone for one in known.values()])
    return lines


def _shared(plan: Plan, alone: Sequence[Stated | None]) -> list[str]:
    sharing = plan.sharing
    assert sharing is not None
    most = max((one.epsilon for one in alone if one is not None), default=math.inf)
    return [
        f"The noise is shared under secure aggregation: of {sharing.sites} sites, a sum holds at "
        f"least {sharing.threshold}, of which at most {sharing.colluding} may work with the "
        "coordinator.\n",
        "| against | ε promised to one site's records, at the same δ |",
        "|---|---|",
        "| the public, who see the adapters | as above |",
        f"| at most {sharing.colluding} of the other sites together, with or without the "
        "coordinator | as above |",
        f"| all other sites together, with or without the coordinator | {shown(most, 3)} for "
        f"the whole plan of {plan.num_rounds} rounds |",
        "",
    ]


def _of_whole_sites(card: Card) -> list[str]:
    """States what the noise that the coordinator added promises in addition."""
    plan = card.central
    if plan is None:
        return []
    return [
        f"The coordinator added noise of {plan.noise_multiplier:g} times the longest update "
        f"({plan.max_update_norm:g}) to every sum of {plan.sites} sites. For a whole **site** with "
        f"all its records, add-remove, against the other sites and the public: ε = "
        f"{shown(plan.epsilon_after(plan.rounds), 3)}, δ = {plan.delta:g} (PLD), promised for the "
        f"whole plan of {plan.rounds} rounds. Against the coordinator, who sees each update, it "
        "promises nothing.",
        "",
    ]
