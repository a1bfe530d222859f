"""Uses Flower's private interfaces: tasks, Runtime and Control API, processes. No other part does.

Flower has no public interface for a custom executor or coordinator. The interfaces used here are
pinned to one minor version (1.41), and `tests/deployment/flower/test_contract.py` checks them.
"""

# What to do where Flower's parts are others than these.
INSTALL_TESTED = "install the version that Cloister is tested with: pip install 'flwr>=1.41,<1.42'"
