"""Pytest's capture of logs, in tests that ask for it (`caplog`) alone.

In each of a test's three steps pytest looks twice through all loggers, four thousand with torch and
transformers, for those that do not propagate: a millisecond a test, of ten thousand tests.
"""

import logging
from collections.abc import Generator

import pytest


class LogsWhereAsked:
    """Stands for pytest's plugin; its hooks run where a test has the fixture.

    Args:
        plugin: `_pytest.logging.LoggingPlugin`.
    """

    def __init__(self, plugin: object) -> None:
        self._plugin = plugin

    def _step(self, name: str, item: pytest.Item) -> Generator[None, object, object]:
        if "caplog" in getattr(item, "fixturenames", ()):
            return (yield from getattr(self._plugin, name)(item))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._step("pytest_runtest_setup", item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._step("pytest_runtest_call", item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._step("pytest_runtest_teardown", item))


def capture_logs_where_asked(plugins: pytest.PytestPluginManager) -> None:
    """Puts `LogsWhereAsked` in the place of pytest's plugin."""
    plugins.register(LogsWhereAsked(plugins.unregister(name="logging-plugin")))
    # As while pytest captures: a record that nobody handles is not printed.
    logging.getLogger().addHandler(logging.NullHandler())
