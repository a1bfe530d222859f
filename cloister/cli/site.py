"""`cloister site`: commands of an institution for its file, policy, budget and checks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli import (
    site_backup,
    site_evaluate,
    site_feedback,
    site_key,
    site_overlap,
    site_service,
    site_studies,
    site_trust,
)
from cloister.cli.arguments import AsJson, SiteToml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.client.site_file import SiteFile
    from cloister.recipe import Recipe

app = typer.Typer(
    help="Manage an institution's side: policy, budget, checks.", no_args_is_help=True
)
policy = typer.Typer(help="Show and test the site's policy.", no_args_is_help=True)
budget = typer.Typer(help="Show the data set's lifetime budget.", no_args_is_help=True)
app.add_typer(policy, name="policy")
app.add_typer(budget, name="budget")
app.add_typer(site_studies.app, name="studies")
app.add_typer(site_feedback.app, name="feedback")
app.command("join")(site_service.join)
app.command("trust")(site_key.trust)
app.command("start")(site_service.start)
app.command("reload")(site_service.reload)
app.command("stop")(site_service.stop)
app.command("status")(site_service.status)
app.command("overlap")(site_overlap.overlap)
app.command("evaluate")(site_evaluate.evaluate)
app.command("trust-ca")(site_trust.trust_ca)
app.command("approve")(site_studies.approve_here)
app.command("backup")(site_backup.backup)
app.command("restore")(site_backup.restore)

Study = Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A study to be joined.")]


@app.command("init")
def init(
    site: SiteToml = Path("site.toml"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Make the ledger without asking; for scripts.")
    ] = False,
) -> None:
    """Write a site's file to fill in; on the second run, read the records and make their ledger.

    Example: cloister site init site.toml
    """
    from cloister.client.site_file import TEMPLATE, read_site
    from cloister.deployment.site.open_ledger import begin_ledger, is_begun
    from cloister.errors import BadFileError
    from cloister.files import write_whole

    if not site.exists():
        try:
            write_whole(site, TEMPLATE.encode())
        except OSError as error:
            raise BadFileError(f"{site}: cannot be written ({error}); name another") from error
        typer.echo(f"{site}: written. Fill it in, then run this again to make the ledger.")
        return
    file = read_site(site)
    begun = is_begun(file)
    if not begun:
        from cloister.deployment.site.doctor_data import describe
        from cloister.deployment.site.records import read_records

        counts, findings = describe(file, read_records(file))
        typer.echo(f"{file.data}: {counts}")
        for finding in findings:
            typer.echo(f"- {finding.note}\n  → {finding.remedy}")
        typer.echo(_for_ever(file))
        if not yes:
            _confirm(file)
    ledger = begin_ledger(file)
    typer.echo(
        f"{file.ledger}: the data set's ledger, {'begun before' if begun else 'begun'}, for its "
        f"life: ε = {ledger.budget.epsilon:g}, δ = {ledger.budget.delta:g}, for one {ledger.unit}."
        "\nIts key is beside it (.key), readable by you only; cloister site backup writes both "
        "into one file.\n"
        f"public key: {ledger.public_key}"
    )


def _for_ever(file: SiteFile) -> str:
    """Returns a text on the values that cannot be changed once the ledger exists."""
    budget, unit = file.policy.budget, file.policy.privacy.unit
    return (
        f"{file.ledger}: this makes the ledger of these data. From then on, for their lifetime, "
        "these stay as they are:\n"
        f"- the budget of all studies together: ε = {budget.epsilon:g} at δ = {budget.delta:g};\n"
        f"- the unit whose presence is hidden: one {unit}"
        + (f", identified by the column {file.policy.privacy.person}" * (unit == "person"))
        + ";\n- the place of the ledger, and its key: a second ledger for the same data would "
        "spend the budget twice."
    )


def _confirm(file: SiteFile) -> None:
    """Asks the operator to confirm by typing the site's name.

    Raises:
        UsageError: There is no terminal, or another word is typed.
    """
    from cloister.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask the question, so nothing was made: read the text above, "
            "then run this again with --yes"
        )
    if typer.prompt("Type the site's name to make the ledger").strip() != file.site.name:
        raise UsageError(f"not confirmed ({file.site.name} is the name); nothing was made")


@policy.command("show")
def policy_show(site: SiteToml, as_json: AsJson = False) -> None:
    """Show in words what a site accepts.

    Example: cloister site policy show site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.policy_text import approvals_in_words, in_words

    file = read_site(site)
    lines = [*in_words(file.policy), *approvals_in_words(file.approvals)]
    if as_json:
        typer.echo(json.dumps({"site": file.site.name, "policy": lines}))
        return
    typer.echo(f"{file.site.name}:")
    for line in lines:
        typer.echo(f"- {line}")


@policy.command("check")
def policy_check(
    site: SiteToml,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A study to be joined.")],
    exact: Annotated[
        bool,
        typer.Option(
            help="Load the base too, to check its modules and the bytes of the longest message."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show whether a site would join a study, with which plan, and what it would cost.

    Example: cloister site policy check site.toml study.toml
    """
    from cloister.client.acceptance import accept, proposed_plan
    from cloister.client.changes import as_rows, changes
    from cloister.client.site_file import read_site
    from cloister.deployment.site.open_ledger import check_covered
    from cloister.ledger.stated import of_plan
    from cloister.names import counted
    from cloister.privacy.votes import votes_shapes
    from cloister.recipe.vote_study import read_study

    file, study = read_site(site), read_study(recipe)
    plan = accept(study, file)
    begun = check_covered(file, study.digest(), plan)
    isolated = file.policy.privacy.isolate_units
    tightened = changes(proposed_plan(study, file), plan, isolate_units=isolated)
    promised = of_plan(plan)
    counts = None if plan.votes is None else _encoded(votes_shapes(plan.votes))  # of no base
    needed = _message_bytes(file, study) if exact else counts
    if as_json:
        document = {
            "site": file.site.name,
            "accepted": True,
            "ledger_begun": begun,
            "promise": promised.to_json(),
            "rounds": plan.num_rounds,
            "evaluation_rounds": [] if plan.evaluations is None else list(plan.evaluations.rounds),
            "votes": plan.votes,
            "noise_multiplier": plan.noise_multiplier,
            "sample_rate": plan.sample_rate,
            "max_records": plan.max_records,
            "message_bytes": needed,
            "tightened": {change.name: [change.asked, change.accepted] for change in tightened},
            "changes": as_rows(tightened),
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(
        f"{file.site.name} joins: {promised}.\n"
        f"It is {counted(plan.num_rounds, 'round')} of "
        + ("votes." if plan.votes else f"{counted(plan.local_steps, 'step')}.")
    )
    if plan.evaluations is not None:
        typer.echo(
            "Noised statistics of the held-out units leave after round "
            f"{', '.join(map(str, plan.evaluations.rounds))} (private evaluations); ε counts them."
        )
    if plan.votes is not None:
        typer.echo(
            f"Nothing is trained: in each round every {plan.unit} votes for one of {plan.votes:,} "
            "public texts, and noised counts leave; ε counts them."
        )
    allowed = file.policy.accept.max_message_bytes
    typer.echo(
        f"Its longest message has {needed:,} bytes; accept.max_message_bytes allows {allowed:,}."
        if needed is not None
        else f"accept.max_message_bytes allows messages of {allowed:,} bytes; --exact loads the "
        "base and says how many the study needs."
    )
    if not begun:
        typer.echo(
            f"The data set's ledger is not begun yet, so nothing was charged so far; cloister site "
            f"init {site} begins it before the site takes part."
        )
    for change in tightened:
        typer.echo(f"- {change}")


def _message_bytes(file: SiteFile, study: Recipe) -> int:
    """Returns the longest message of a study, in bytes, once its base is loaded and accepted."""
    from cloister.deployment.site.opened_site import accepted_plan, site_workspace

    workspace = site_workspace(file, study)
    plan = accepted_plan(file, study, workspace)
    sent = workspace.whole.shapes if plan.votes is None else dict(plan.message)
    return _encoded(sent)


def _encoded(sent: Mapping[str, tuple[int, ...]]) -> int:
    from cloister.adapter.wire import encoded_length

    return encoded_length(sent, "float32")


@budget.command("show")
def budget_show(site: SiteToml, as_json: AsJson = False) -> None:
    """Show what was spent of the data set's budget.

    Example: cloister site budget show site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.status import budget_of
    from cloister.names import counted

    facts = budget_of(read_site(site))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(
        f"{facts['in_words']['promise']}.\n"
        f"{facts['in_words']['used']};\n"
        f"in {counted(facts['rounds'], 'round')} of "
        f"{'1 study' if facts['studies'] == 1 else str(facts['studies']) + ' studies'}; "
        f"{facts['releases']} released."
    )
    if facts["in_words"]["promise_alone"]:
        typer.echo(f"{facts['in_words']['promise_alone']}.")


@budget.command("forecast")
def budget_forecast(site: SiteToml, as_json: AsJson = False) -> None:
    """Show how many more rounds of the last plan fit into the budget.

    Example: cloister site budget forecast site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.status import budget_of
    from cloister.ledger.stated import limit_shown, shown
    from cloister.names import counted

    facts = budget_of(read_site(site))
    if as_json:
        typer.echo(json.dumps(facts))
    elif facts["rounds"] == 0:
        typer.echo("nothing was charged yet; cloister site policy check prices a study")
    elif facts["rounds_left"] is None:
        typer.echo("the budget has no limit: ε = ∞ is allowed")
    else:
        typer.echo(
            f"capacity left: {counted(facts['rounds_left'], 'round')} of the plan charged last. "
            f"With all of it used, ε = {shown(facts['epsilon_then'])} of the budget's "
            f"{limit_shown(facts['budget']['epsilon'])} would be spent (PLD, both at δ = "
            f"{facts['delta_then']:g}, half of the budget's). This is the limit, not advice."
        )


@app.command("doctor")
def doctor(site: SiteToml, recipe: Study = None, as_json: AsJson = False) -> None:
    """Check everything that a site needs before a study, with remedies.

    Example: cloister site doctor site.toml study.toml
    """
    from cloister.cli.terminal import Terminal
    from cloister.client.site_file import read_site
    from cloister.deployment.site.checks import CheckLevel, Outcome
    from cloister.deployment.site.doctor import examine
    from cloister.errors import UnhealthyError
    from cloister.recipe.vote_study import read_study

    file = read_site(site)
    study: Recipe | None = read_study(recipe) if recipe else None
    console = Terminal()
    colours = {CheckLevel.PASS: "green", CheckLevel.WARN: "yellow", CheckLevel.FAIL: "red"}
    outcomes: list[Outcome] = []
    for outcome in examine(file, study):
        outcomes.append(outcome)
        if not as_json:
            console.print(
                f"[{colours[outcome.level]}]{outcome.level}[/]  {outcome.name:<17}",
                end="",
                markup=True,
            )
            console.print(outcome.detail, highlight=False, markup=False, soft_wrap=True)
            if outcome.level is not CheckLevel.PASS:
                console.print(
                    f"      → {outcome.remedy}", highlight=False, markup=False, soft_wrap=True
                )
    if as_json:
        rows = [
            {"check": o.name, "level": o.level, "detail": o.detail, "remedy": o.remedy}
            for o in outcomes
        ]
        typer.echo(json.dumps({"site": file.site.name, "checks": rows}))
    failed = [outcome.name for outcome in outcomes if outcome.level is CheckLevel.FAIL]
    if failed:
        raise UnhealthyError(f"{', '.join(failed)}: correct these before the site takes part")
