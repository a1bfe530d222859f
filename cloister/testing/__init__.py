"""Contract suites: check in one line that your own strategy or task keeps every rule.

    from cloister.testing import check_strategy, check_task

    def test_my_strategy():
        check_strategy(MyStrategy)

    def test_my_task():
        check_task(MyTask, [TextRecord("chest pain", "a"), TextRecord("an itchy rash", "b")])

Each check raises AssertionError with the broken rule and why it matters. They need no test
framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.testing.strategies import check_strategy
    from cloister.testing.tasks import check_task

__all__ = ["check_strategy", "check_task"]


def __getattr__(name: str) -> Any:  # a task's check loads torch, a strategy's does not
    if name == "check_strategy":
        from cloister.testing.strategies import check_strategy

        return check_strategy
    if name == "check_task":
        from cloister.testing.tasks import check_task

        return check_task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
