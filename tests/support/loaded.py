"""Loads what a simulation loads, as `cloister.deployment.loading` does: the collector waits."""

import gc

gc.disable()
import cloister.cli.main  # noqa: E402
import cloister.client.app  # noqa: E402
import cloister.simulation.run  # noqa: E402, F401

gc.freeze()
gc.enable()
