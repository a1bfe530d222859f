"""Describes a study in plain words for the person who approves it: contents, cost and asker.

Everything here comes from the study's document, `site.toml`, the ledger and the enrolment
documents. The base is not loaded, and no record is read.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from cloister.client.acceptance import proposed_plan
from cloister.client.changes import as_rows
from cloister.client.site_file import SiteFile
from cloister.client.terms import StudyTerms
from cloister.deployment.enrolment.coordinator_key import key_fingerprint
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.trusted_key import trusted_coordinator
from cloister.deployment.site.votes_text import votes_in_words, votes_of
from cloister.errors import BudgetError, CloisterError
from cloister.ledger.budget import steps_left
from cloister.ledger.charge import Charge
from cloister.ledger.history import request_of
from cloister.ledger.stated import of_plan
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.models.config import ALL_LINEAR
from cloister.names import counted
from cloister.tasks.config import TaskConfig
from cloister.tasks.score_scale import ScoreScale

# Most labels listed in words; `--json` has all.
LABELS = 60


def facts_of(terms: StudyTerms) -> dict[str, Any]:
    """Returns everything that `cloister site studies show` prints, as JSON.

    Raises:
        RefusedError: The study has no plan here.
    """
    file, recipe, plan = terms.file, terms.recipe, terms.plan
    a_round, in_all = terms.most_bytes
    return {
        "site": file.site.name,
        "study": terms.study,
        "terms": terms.digest(),
        "name": recipe.study.name,
        "asks": _asker(file),
        "base": recipe.model.base,
        "base_sha256": recipe.model.sha256,
        "base_layers": recipe.model.layers,
        "base_center": recipe.model.center,
        "public": _public(terms),
        "task": recipe.task.kind,
        "plugin": _plugin(recipe.task),
        "labels": list(recipe.task.labels),
        "passages": dict(recipe.task.passages or ()),
        "class_weights": dict(recipe.task.class_weights or ()),
        "scores": _scale(recipe.task),
        "items": recipe.task.items,
        "items_sha256": recipe.task.items_sha256,
        "template_sha256": terms.template,
        "prompt": recipe.task.prompt,
        "trains": _trains(terms),
        "begins": _begins(terms),
        "promise": of_plan(plan).to_json(),
        "promise_in_words": str(of_plan(plan)),
        "budget": _budget(terms),
        "data": file.site.data,
        "public_records": plan.public_records,
        "unit": plan.unit.value,
        "max_records": plan.max_records,
        "rounds": plan.num_rounds,
        "local_steps": plan.local_steps,
        **({"noise_bands": plan.groups} if plan.bands else {}),
        **({"evaluations": asdict(plan.evaluations)} if plan.evaluations else {}),
        **({"votes": votes_of(terms)} if plan.votes else {}),
        **({"shares_noise": True} if plan.sharing else {}),
        "most_bytes_a_round": a_round,
        "most_bytes": in_all,
        "changes": as_rows(terms.tightened(proposed_plan(recipe, file))),
    }


def in_words(facts: dict[str, Any]) -> list[str]:
    """Formats the facts for a person, a line each, without control characters."""
    asks, budget = facts["asks"], facts["budget"]
    unit = "person" if facts["unit"] == "person" else "record"
    steps = f"{counted(facts['rounds'], 'round')} of {counted(facts['local_steps'], 'step')}"
    if "votes" in facts:
        steps = f"{counted(facts['rounds'], 'round')} of votes"
    most = facts["max_records"]
    hidden = f"one {unit}"
    if unit == "person":
        hidden += f", of whom {counted(most, 'record')} may count"
    elif most > 1:
        hidden += f", of which at most {most} rows are used: the record and copies made of it"
    lines = [
        f"study      {facts['name']}, {facts['study']}",
        f"asks       {asks['in_words']}",
        f"base       {facts['base']}, SHA-256 {facts['base_sha256']}{_ended(facts['base_layers'])}"
        + _centred(facts["base_center"]),
        f"task       {facts['task']}{_code(facts['plugin'])}",
        *([f"labels     {_labels(facts['labels'])}"] if _has_labels(facts) else []),
        *([f"scores     {facts['scores']}"] if facts["scores"] is not None else []),
        *([f"passages   {_passages(facts['passages'])}"] if facts["passages"] else []),
        *(
            [f"items      {facts['items']}, SHA-256 {facts['items_sha256']}"]
            if facts["items"]
            else []
        ),
        *([f"weights    {_weights(facts['class_weights'])}"] if facts["class_weights"] else []),
        f"template   {_template(facts)}",
        *([f"prompt     {facts['prompt']}"] if facts["prompt"] is not None else []),
        f"trains     {facts['trains']}",
        *([f"begins     {facts['begins']['in_words']}"] if facts["begins"] else []),
        *([f"public     {_trained_on(facts['public'])}"] if facts["public"] else []),
        f"hides      {hidden}",
        f"costs      {facts['promise_in_words']}",
        *([f"noise      {_correlated(facts['noise_bands'])}"] if "noise_bands" in facts else []),
        *([f"evaluates  {_evaluated(facts)}"] if "evaluations" in facts else []),
        *([f"votes      {votes_in_words(facts)}"] if "votes" in facts else []),
        f"budget     {budget['in_words']}",
        f"records    {facts['data']}, declared as {facts['public_records']:,} {unit}s",
        f"length     {steps}",
        f"leaves     at most {facts['most_bytes_a_round']:,} bytes in a round and "
        f"{facts['most_bytes']:,} in all (accept.max_message_bytes; --exact loads the base "
        "and gives the exact numbers)",
    ]
    changed = [
        f"{row['field']}: {_short(row['asked'])} asked, {_short(row['accepted'])} by this site's "
        "policy" + (f": {row['consequence']}" if row["consequence"] else "")
        for row in facts["changes"]
    ]
    lines += [f"tightened  {line}" for line in changed or ["nothing: the policy asks for no more"]]
    return [visible(line) for line in lines]


def visible(text: str) -> str:
    """A text in which control characters are shown as Python's escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _ended(layers: int | None) -> str:
    return "" if layers is None else f", ended after its first {counted(layers, 'layer')}"


def _centred(language: str | None) -> str:
    if language == "public":
        return ", centred by the mean of the coordinator's public records"
    return "" if language is None else f", centred by {language} sentences"


def _public(terms: StudyTerms) -> dict[str, Any] | None:
    """Describes the public records that the coordinator trains on; None: there are none."""
    data = terms.recipe.data
    if data.public is None:
        return None
    return {
        "file": data.public,
        "sha256": data.public_sha256,
        "records": data.public_count,
        "steps": terms.recipe.public_steps,
        "replay": terms.recipe.federation.public_replay or 0,
    }


def _evaluated(facts: dict[str, Any]) -> str:
    """Describes the private evaluations, whose cost is part of the study's."""
    told = facts["evaluations"]
    how = "with noise multiplier"
    if "shares_noise" in facts:
        how = "under a mask; in the sum over sites they have noise multiplier"
    return (
        f"after round {', '.join(map(str, told['rounds']))} on this site's held-out units; their "
        f"clipped statistics leave {how} {told['noise_multiplier']:.4g} (the cost above counts "
        "them)"
    )


def _trained_on(public: dict[str, Any]) -> str:
    when = [
        *([f"before round 1 {counted(public['steps'], 'step')}"] if public["steps"] else []),
        *([f"after each round {counted(public['replay'], 'step')}"] if public["replay"] else []),
    ]
    return (
        f"{' and '.join(when) or 'no step'} of the coordinator on "
        f"{public['records']} public records ({public['file']}, SHA-256 {public['sha256']})"
    )


def _scale(task: TaskConfig) -> str | None:
    """Returns the scale of scores, in words; None if the study has no scores."""
    if task.score_range is None:
        return None
    return str(ScoreScale.of(task.score_range, task.score_step))


def _has_labels(facts: dict[str, Any]) -> bool:
    """Returns whether the text about a study has a line on labels: not for scores or items."""
    return facts["scores"] is None and facts["items"] is None


def _weights(weights: dict[str, float]) -> str:
    shown = ", ".join(f"{name} {weight:g}" for name, weight in list(weights.items())[:LABELS])
    more = f" and {len(weights) - LABELS} more (--json lists all)" if len(weights) > LABELS else ""
    return f"{shown}{more}; others 1"


def _passages(passages: dict[str, str]) -> str:
    """Describes the number and length of the study's public passages."""
    size = sum(map(len, passages.values()))
    return (
        f"{len(passages):,} public ones with {size:,} characters in all, which the base encodes "
        "without the adapter (--json has them)"
    )


def _labels(labels: list[str]) -> str:
    if not labels:
        return "none: the assistant's words in conversations are learnt"
    shown = ", ".join(labels[:LABELS])
    more = f" and {len(labels) - LABELS} more (--json lists all)" if len(labels) > LABELS else ""
    return f"{len(labels)}: {shown}{more}"


def _plugin(task: TaskConfig) -> dict[str, str] | None:
    """Describes the package with a plug-in's code; None for a built-in task."""
    if task.plugin is None:
        return None
    return {"distribution": task.plugin.distribution, "version": task.plugin.version}


def _code(plugin: dict[str, str] | None) -> str:
    if plugin is None:
        return ""
    return f", code of {plugin['distribution']} {plugin['version']}, which is installed here"


def _template(facts: dict[str, Any]) -> str:
    if facts["task"] != "causal-lm":
        return "none: no conversations"
    if facts["template_sha256"] is None:
        return "the base's own, or the plain one where it has none"
    return f"the study's own, SHA-256 {facts['template_sha256']}, which site.toml accepts"


def _trains(terms: StudyTerms) -> str:
    if terms.plan.votes is not None:
        return "nothing: its records vote"
    lora, training = terms.recipe.lora, terms.recipe.training
    where = ", ".join(lora.target_modules) or "the attention's query and value projections"
    if lora.target_modules == (ALL_LINEAR,):
        where = "all linear modules"
    layers = "all layers" if not lora.top_layers else f"the top {counted(lora.top_layers, 'layer')}"
    factors = {
        "both": "both factors of adapters",
        "none": "no adapter",
        "alternate": "one factor of adapters at a time",
    }.get(lora.train, "factor B of adapters")
    others = f" ({', '.join(lora.rank_pattern)})" if lora.rank_pattern else ""
    adapters = f"{factors} of rank {lora.r}{others} on {where} in {layers}"
    if not lora.is_lora:
        named = f"on {where}" if lora.target_modules else "on the method's usual modules"
        adapters = f"adapters ({lora.method}) {named} in {layers}"
    if lora.freeze:
        adapters += f", but for {', '.join(lora.freeze)}"
    head = lora.head or ("frozen" if terms.recipe.task.records == "messages" else "linear")
    said = "a frozen head" if head == "frozen" else f"a head ({head})"
    what = said if lora.train == "none" else f"{adapters}, and {said}"
    kept = "; each site also keeps an adapter of its own" if training.personal else ""
    return f"{what}; {training.mode}, by {training.optimizer}{kept}; the base stays as it is"


def _begins(terms: StudyTerms) -> dict[str, Any] | None:
    """Describes the adapter with which the study begins; None: a fresh one."""
    start, former = terms.recipe.study.start, terms.recipe.study.former
    if start is None or former is None:
        return None
    try:
        verdict = verify(LedgerFile(terms.file.ledger).entries(), str(terms.file.ledger))
        rounds = sum(study == former for study, _ in verdict.history.rounds)
    except CloisterError:
        rounds = 0
    here = (
        f"this site's ledger charged {counted(rounds, 'round')} of it, so for its people the ε of "
        "both studies add up (see budget)"
        if rounds
        else "this site's ledger charged no round of it"
    )
    return {
        "adapter": start,
        "study": former,
        "rounds_here": rounds,
        "in_words": f"with the adapter of study {former[:16]}…, SHA-256 {start}; {here}",
    }


def _asker(file: SiteFile) -> dict[str, Any]:
    """Describes the coordinator: its enrolment documents, and the key that signs its questions."""
    try:
        invite = SiteMembership.of(file).invite
    except CloisterError:
        said = "no coordinator: this site has not joined one (cloister site join)"
        return {
            "coordinator": None,
            "address": None,
            "fingerprint": None,
            "key": None,
            "in_words": said,
        }
    try:
        key: str | None = key_fingerprint(trusted_coordinator(file).key)
    except CloisterError:
        key = None
    return {
        "coordinator": invite.coordinator,
        "address": invite.address,
        "fingerprint": invite.fingerprint,
        "key": key,
        "in_words": (
            f"{invite.coordinator} at {invite.address}, fingerprint {invite.fingerprint}, "
            f"its questions signed by {key or 'a key that this site does not have yet'}"
        ),
    }


def _correlated(bands: int) -> str:
    return (
        f"correlated over {bands} rounds; this site keeps that of the last {bands - 1} in a secret "
        "file, which is in no backup, and without which the study ends here"
    )


def _budget(terms: StudyTerms) -> dict[str, Any]:
    """Describes what is left of the data set's lifetime budget, and how much of this study fits."""
    file, plan = terms.file, terms.plan
    try:
        ledger = open_ledger(file)
        verdict = verify(LedgerFile(file.ledger).entries(), str(file.ledger))
    except CloisterError as error:
        said = f"not known:  {str(error).splitlines()[0]}"
        return {"epsilon": None, "rounds_left": None, "is_covered": False, "in_words": said}
    budget = verdict.history.budget
    limit = (
        "the lifetime budget has no limit: nothing is protected"
        if math.isinf(budget.epsilon)
        else f"of the lifetime ε = {budget.epsilon:g} at δ = {budget.delta:g}, spent so far: "
        f"{verdict.of_budget}"
    )
    request = request_of(plan, is_private=plan.is_private)
    try:
        ledger.check(Charge.first(terms.study, plan))
        steps = steps_left(request, verdict.history.spent, budget)
        taken = verdict.history.rounds if plan.votes is None else verdict.history.votes
        charged = sum(study == terms.study for study, _ in taken)
        rows = len(verdict.history.rows(terms.study, plan.digest()))
        left = None if steps is None else plan.rounds_in(steps, rows)
        before = f", after {counted(charged, 'round')} charged before" if charged else ""
        covers = left is None or left >= plan.num_rounds - charged
        fits = "all of this study fits" if covers else f"only {counted(left or 0, 'round')} of it"
        said, is_covered = f"{limit}; {fits}{before}", True
    except BudgetError:
        left, is_covered, said = 0, False, f"{limit}; no round of this study fits any more"
    except CloisterError as error:
        left, is_covered, said = 0, False, f"{limit}; {str(error).splitlines()[0]}"
    return {
        "epsilon": None if math.isinf(budget.epsilon) else budget.epsilon,
        "rounds_left": left,
        "is_covered": is_covered,
        "in_words": said,
    }


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
