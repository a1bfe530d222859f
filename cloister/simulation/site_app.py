"""The ClientApp of a simulation's sites, in whatever process they run."""

from __future__ import annotations

from collections.abc import Callable

from flwr.clientapp import ClientApp

from cloister.client.app import make_client_app
from cloister.errors import RoundSpentError
from cloister.protocol.signed_questions import Unsigned
from cloister.simulation.study import SimulatedSites


def end_on_fault(error: Exception) -> None:
    """Ends a simulation if a site's charged round failed.

    At an institution the round is spent and the study continues; in a simulation the error is in
    the user's own program, and a result without the site would not help.

    Raises:
        Exception: The error of the round.
    """
    if isinstance(error, RoundSpentError) and error.__cause__ is not None:
        raise error.__cause__


def site_app(
    sites: SimulatedSites,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> ClientApp:
    """Makes the app that answers for every site of a simulation.

    Args:
        sites: Finds a site by its Flower context.
        on_step: Called after each local step.
        on_error: Called with each error that does not end the simulation.
    """

    def failed(error: Exception) -> None:
        end_on_fault(error)
        on_error(error)

    return make_client_app(sites.admitted, Unsigned(), on_step, failed, sites.identity)
