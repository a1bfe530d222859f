"""`cloister data`: checks and prepares a file of records, at the institution."""

from __future__ import annotations

import typer

from cloister.cli import (
    data_agreement,
    data_augment,
    data_check,
    data_clean,
    data_fhir,
    data_label,
    data_plant,
    data_scrub,
    data_sequences,
    data_split,
    data_sql,
)

app = typer.Typer(
    help="Check and prepare a file of records; nothing leaves this machine.", no_args_is_help=True
)

app.command("check")(data_check.check)
app.command("clean")(data_clean.clean)
app.command("fhir")(data_fhir.fhir)
app.command("scrub")(data_scrub.scrub)
app.command("split")(data_split.split)
app.command("sql")(data_sql.sql)
app.command("plant")(data_plant.plant)
app.command("augment")(data_augment.augment)
app.command("sequences")(data_sequences.sequences)
app.command("items")(data_sequences.items)
app.command("label")(data_label.label)
app.command("agreement")(data_agreement.agreement)
