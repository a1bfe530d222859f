"""`cloister epsilon`: ε of subsampled Gaussian steps, by any of three accountants."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Annotated

import typer

from cloister.errors import RefusedError, UsageError


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
        float | None, typer.Option(help="Probability of a record to be in a batch.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How often the mechanism runs.")] = None,
    delta: Annotated[float, typer.Option(help="δ of the guarantee.")] = 1e-5,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="S,Q,T", help="Further steps to compose; may be repeated."),
    ] = None,
    accountant: Annotated[
        AccountantName, typer.Option(help="pld is the reported value.")
    ] = AccountantName.PLD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute ε for one record added or removed.

    Example: cloister epsilon --noise-multiplier 1 --sample-rate 0.032 --steps 600 --delta 1e-5
    """
    from cloister.canonical import json_number
    from cloister.privacy.accounting import cross_check, prv_epsilon, rdp_epsilon
    from cloister.privacy.events import GaussianEvent

    single = (noise_multiplier, sample_rate, steps)
    given = [_parsed(text) for text in event or []]
    if noise_multiplier is not None and sample_rate is not None and steps is not None:
        given.insert(0, (noise_multiplier, sample_rate, steps))
    elif single != (None, None, None) or not given:
        raise UsageError(
            "--noise-multiplier, --sample-rate and --steps: give all three, or --event S,Q,T"
        )
    if not 0 < delta < 1:
        raise UsageError(f"--delta: {delta} given; a number between 0 and 1 is needed")
    events = [
        GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t)
        for s, q, t in map(_checked, given)
    ]
    found: float | None = cross_check(events, delta)
    if accountant is not AccountantName.PLD:
        compute = rdp_epsilon if accountant is AccountantName.RDP else prv_epsilon
        found = compute(events, delta)
    if found is None:
        raise RefusedError("--accountant prv: it does not converge on these values; use pld or rdp")
    if as_json:
        document = {
            "epsilon": json_number(found),
            "delta": delta,
            "accountant": accountant.value,
            "neighbouring": "add-remove",
        }
        typer.echo(json.dumps(document))
        return
    shown = f"{found:.4f}" if math.isfinite(found) else "∞"
    typer.echo(
        f"ε = {shown} at δ = {delta:g}, for one record added or removed, by "
        f"{accountant.value.upper()}, against whoever sees every step"
    )


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


def _checked(given: Steps) -> Steps:
    noise, rate, steps = given
    if not 0 <= noise < math.inf:
        raise UsageError(f"noise multiplier: {noise} given; a number from 0 up is needed")
    if not 0 <= rate <= 1:
        raise UsageError(f"sample rate: {rate} given; a probability is needed")
    if steps < 0:
        raise UsageError(f"steps: {steps} given; 0 or more are needed")
    return given
