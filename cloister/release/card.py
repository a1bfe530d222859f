"""The README of a released adapter: its model card and its privacy card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.models.pooling import Pooling
from cloister.privacy.central import CentralPlan
from cloister.privacy.plan import Plan
from cloister.release.snippets import loading_script
from cloister.tasks.config import TaskKind


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says.

    Attributes:
        name: The study.
        base: The base model, as the recipe names it.
        base_sha256: SHA-256 of its weights.
        kind: The task.
        labels: Its outputs' names.
        pooling: How sequences are pooled; None where they are not.
        parameters: Number of trained parameters.
        rounds: Rounds closed.
        mode: How it was federated, in words.
        metric: Name of the primary metric.
        test: Scores on the public test set.
        plain_test: The plain twin's scores; None: no twin was run.
        majority: What always guessing the most frequent label reaches.
        plans: By site.
        epsilon: ε spent, by site.
        recipe_digest: Of the study's recipe.
        ledgers: Where each site's ledger ended, in words.
        is_personal: Whether each site kept a part of its adapter.
        central: Noise that the coordinator added besides.
    """

    name: str
    base: str
    base_sha256: str
    kind: TaskKind
    labels: Sequence[str]
    pooling: Pooling | None
    parameters: int
    rounds: int
    mode: str
    metric: str
    test: Mapping[str, float]
    plain_test: Mapping[str, float] | None
    majority: float | None
    plans: Mapping[str, Plan]
    epsilon: Mapping[str, float]
    recipe_digest: str
    ledgers: Mapping[str, str]
    is_personal: bool = False
    central: CentralPlan | None = None


_PERSONAL = (
    "Each site kept its own B. This folder holds what they share, with B at zero: a start for a "
    "new site, and no model by itself. The scores are the mean over the sites' own adapters.\n"
)


def write_card(folder: Path, card: Card) -> None:
    """Writes `README.md` next to the adapter."""
    (folder / "README.md").write_text(render(card), encoding="utf-8")


def render(card: Card) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    sections = [
        f"---\nbase_model: {card.base}\nlibrary_name: peft\ntags: [lora, federated-learning"
        f"{', differential-privacy' if _is_private(card) else ''}]\n---\n",
        f"# {card.name}\n",
        f"A LoRA adapter for `{card.base}` ({card.kind}), trained by {len(card.plans)} sites that "
        f"kept their records: {card.rounds} rounds, {card.mode}, {card.parameters:,} trained "
        "parameters.\n",
        *([_PERSONAL] if card.is_personal else []),
        _scores(card),
        _privacy(card),
        f"## Loading\n\n```python\n{loading_script(card.base, card.kind, card.pooling)}```\n",
        f"## Origin\n\n- base weights, SHA-256: `{card.base_sha256}`\n"
        f"- recipe, SHA-256: `{card.recipe_digest}`\n",
    ]
    return "\n".join(sections)


def _scores(card: Card) -> str:
    plain = card.plain_test
    head = "| | this adapter |" + (" same run without privacy, untuned |" if plain else "")
    lines = ["## Scores on the public test set\n", head, "|---|---|" + ("---|" if plain else "")]
    for name, value in card.test.items():
        row = f"| {name} | {value:.4f} |"
        if plain:
            row += f" {plain[name]:.4f} |" if name in plain else " |"
        lines.append(row)
    if plain:
        lines.append(
            "\nThe run without privacy has this study's settings but for its learning rate. Tuned "
            "for itself it may score higher, so privacy cost at least the difference."
        )
    if card.majority is not None:
        lines.append(f"\nAlways guessing the most frequent label scores {card.majority:.4f}.")
    if not plain and _is_private(card):
        lines.append("\nNo plain twin was run, so what privacy cost is not stated.")
    return "\n".join(lines) + "\n"


def _is_private(card: Card) -> bool:
    return all(math.isfinite(value) for value in card.epsilon.values())


def _privacy(card: Card) -> str:
    if not _is_private(card):
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
    first = next(iter(card.plans.values()))
    lines = [
        "## Privacy\n",
        f"Each site's records are protected by (ε, δ)-differential privacy for one "
        f"**{first.unit}**, {first.neighbouring} neighbours, by privacy loss distributions (PLD), "
        "over all rounds charged in its ledger.\n",
        "| site | ε | δ | noise multiplier | sample rate | steps a round | clip |",
        "|---|---|---|---|---|---|---|",
    ]
    for site, plan in card.plans.items():
        lines.append(
            f"| {site} | {card.epsilon[site]:.3f} | {plan.delta:g} | {plan.noise_multiplier:g} | "
            f"{plan.sample_rate:.4g} | {plan.local_steps} | {plan.max_grad_norm:g} |"
        )
    lines += ["", "The sites' ledgers, which `cloister ledger verify` checks, ended at:\n"]
    lines += [f"- {site}: {end}" for site, end in card.ledgers.items()]
    lines += [
        "",
        *_against(first),
        *_of_whole_sites(card),
        "A person with records at several sites, or several records at one, is protected less than "
        f"one {first.unit}: their ε adds up.\n",
        "Not covered: the choice of hyper-parameters, labels and public test data; records that "
        "are not in the training sets; what an operator publishes beside this adapter.",
    ]
    return "\n".join(lines) + "\n"


def _against(plan: Plan) -> list[str]:
    """Against whom the stated ε holds, and what holds against others."""
    sharing = plan.sharing
    if sharing is None:
        return [
            "The same ε holds against the coordinator, the other sites and the public: noise is "
            "added at the site, before anything is sent.",
        ]
    alone = plan.alone()
    shown = alone.epsilon_after(plan.num_rounds) if alone is not None else math.inf
    least = f"{shown:.3f}" if math.isfinite(shown) else "∞"
    return [
        f"The noise is shared under secure aggregation: of {sharing.sites} sites, a sum holds at "
        f"least {sharing.threshold}, of which at most {sharing.colluding} may work with the "
        "coordinator.\n",
        "| against | ε of one site's records |",
        "|---|---|",
        "| the public, who see the adapters | as above |",
        f"| at most {sharing.colluding} of the other sites together, with or without the "
        "coordinator | as above |",
        f"| all other sites together, with or without the coordinator | {least} after "
        f"all {plan.num_rounds} rounds |",
        "",
    ]


def _of_whole_sites(card: Card) -> list[str]:
    """What noise at the coordinator adds to the promise."""
    plan = card.central
    if plan is None:
        return []
    return [
        f"The coordinator added noise of {plan.noise_multiplier:g} times the longest update "
        f"({plan.max_update_norm:g}) to every sum of {plan.sites} sites. For a whole **site** with "
        f"all its records, add-remove, against the other sites and the public: ε = "
        f"{plan.epsilon_after(card.rounds):.3f}, δ = {plan.delta:g} (PLD). Against the "
        "coordinator, who sees each update, it promises nothing.",
        "",
    ]
