"""Uses Flower's private interfaces: tasks, Runtime and Control API, processes. No other part does.

Flower has no public interface for a custom executor or coordinator. The interfaces used here are
pinned to one minor version (1.41), and `tests/deployment/flower/test_contract.py` checks them.
"""
