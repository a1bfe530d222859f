"""`cloister epsilon`: ε of subsampled Gaussian steps, by any of three accountants."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from cloister.errors import UsageError


class AccountantName(StrEnum):
    """The accountant that computes ε."""

    PLD = "pld"
    RDP = "rdp"
    PRV = "prv"


def epsilon(
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise standard deviation over the clip bound.")
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="Probability that a record is in a batch.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps.")] = None,
    delta: Annotated[float, typer.Option(help="δ of the guarantee.")] = 1e-5,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="S,Q,T", help="Further steps to compose; may be repeated."),
    ] = None,
    accountant: Annotated[
        AccountantName,
        typer.Option(help="pld: the value that Cloister reports; rdp and prv: for comparison."),
    ] = AccountantName.PLD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute ε for one record added or removed.

    Example: cloister epsilon --noise-multiplier 1 --sample-rate 0.032 --steps 600 --delta 1e-5
    """
    from cloister.api.epsilon_value import epsilon as computed

    single = (noise_multiplier, sample_rate, steps)
    given = [_parsed(text) for text in event or []]
    if None in single and (single != (None, None, None) or not given):
        raise UsageError(
            "--noise-multiplier, --sample-rate and --steps: give all three, or --event S,Q,T"
        )
    if not 0 < delta < 1:
        raise UsageError(f"--delta: {delta} given; a number between 0 and 1 is needed")
    found = computed(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        steps=steps,
        delta=delta,
        events=given,
        accountant=accountant.value,
    )
    typer.echo(json.dumps(found.to_json()) if as_json else str(found))


Steps = tuple[float, float, int]


def _parsed(text: str) -> Steps:
    parts = text.split(",")
    try:
        noise, rate, steps = parts
        return float(noise), float(rate), int(steps)
    except ValueError as error:
        raise UsageError(
            f"--event: {text!r} given; noise multiplier, sample rate and steps are needed, as in "
            "1.0,0.032,600"
        ) from error
