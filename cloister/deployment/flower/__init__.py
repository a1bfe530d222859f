"""The one room that knows Flower's private parts: tasks, Runtime and Control API, processes.

Flower publishes no interface for an executor or a coordinator of one's own. What is used here is
pinned to one minor version (1.41), and `tests/deployment/flower/test_contract.py` holds it.
"""
