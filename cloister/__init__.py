"""Cloister: federated fine-tuning of language models under differential privacy.

The names in `__all__` are the public ones; each is imported when it is first used, so that
`import cloister` loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.adapter.tensors import Adapter
    from cloister.api.dealing import partition
    from cloister.api.definition import Study
    from cloister.api.epsilon_value import Epsilon, epsilon
    from cloister.api.run_result import Result
    from cloister.api.simulating import resume, simulate
    from cloister.api.study_plan import StudyPlan
    from cloister.errors import CloisterError
    from cloister.export.compress.writing import CompressedModel, compress_model
    from cloister.export.forms.writing import Export, export_model
    from cloister.privacy.config import PrivacyConfig as Privacy
    from cloister.registry.registry import Registry, open_registry
    from cloister.serving.model import Model, load
    from cloister.strategies.strategy import ServerState, Strategy, Traits
    from cloister.tasks.task import Task
    from cloister.trust.attack.writing import AttackReport, attack_model
    from cloister.trust.bias.writing import BiasReport, measure_bias
    from cloister.trust.explain.writing import Explanations, explain_model
    from cloister.trust.memorize.writing import MemorizationReport, measure_memorization
    from cloister.watching.calling import WatchReport, replay_history, watch_model
    from cloister.watching.replayed_history import Replayed

__version__ = version("cloister")

__all__ = [
    "Adapter",
    "AttackReport",
    "BiasReport",
    "CloisterError",
    "CompressedModel",
    "Epsilon",
    "Explanations",
    "Export",
    "MemorizationReport",
    "Model",
    "Privacy",
    "Registry",
    "Replayed",
    "Result",
    "ServerState",
    "Strategy",
    "Study",
    "StudyPlan",
    "Task",
    "Traits",
    "WatchReport",
    "__version__",
    "attack_model",
    "compress_model",
    "epsilon",
    "explain_model",
    "export_model",
    "load",
    "measure_bias",
    "measure_memorization",
    "open_registry",
    "partition",
    "replay_history",
    "resume",
    "simulate",
    "watch_model",
]

# The module of each public name, and its name there.
_PLACES = {
    "Adapter": ("cloister.adapter.tensors", "Adapter"),
    "AttackReport": ("cloister.trust.attack.writing", "AttackReport"),
    "BiasReport": ("cloister.trust.bias.writing", "BiasReport"),
    "CloisterError": ("cloister.errors", "CloisterError"),
    "CompressedModel": ("cloister.export.compress.writing", "CompressedModel"),
    "Epsilon": ("cloister.api.epsilon_value", "Epsilon"),
    "Explanations": ("cloister.trust.explain.writing", "Explanations"),
    "Export": ("cloister.export.forms.writing", "Export"),
    "MemorizationReport": ("cloister.trust.memorize.writing", "MemorizationReport"),
    "Model": ("cloister.serving.model", "Model"),
    "Privacy": ("cloister.privacy.config", "PrivacyConfig"),
    "Registry": ("cloister.registry.registry", "Registry"),
    "Replayed": ("cloister.watching.replayed_history", "Replayed"),
    "Result": ("cloister.api.run_result", "Result"),
    "ServerState": ("cloister.strategies.strategy", "ServerState"),
    "Strategy": ("cloister.strategies.strategy", "Strategy"),
    "Study": ("cloister.api.definition", "Study"),
    "StudyPlan": ("cloister.api.study_plan", "StudyPlan"),
    "Task": ("cloister.tasks.task", "Task"),
    "Traits": ("cloister.strategies.strategy", "Traits"),
    "WatchReport": ("cloister.watching.calling", "WatchReport"),
    "attack_model": ("cloister.trust.attack.writing", "attack_model"),
    "compress_model": ("cloister.export.compress.writing", "compress_model"),
    "epsilon": ("cloister.api.epsilon_value", "epsilon"),
    "explain_model": ("cloister.trust.explain.writing", "explain_model"),
    "export_model": ("cloister.export.forms.writing", "export_model"),
    "measure_bias": ("cloister.trust.bias.writing", "measure_bias"),
    "measure_memorization": ("cloister.trust.memorize.writing", "measure_memorization"),
    "load": ("cloister.serving.model", "load"),
    "open_registry": ("cloister.registry.registry", "open_registry"),
    "partition": ("cloister.api.dealing", "partition"),
    "replay_history": ("cloister.watching.calling", "replay_history"),
    "resume": ("cloister.api.simulating", "resume"),
    "simulate": ("cloister.api.simulating", "simulate"),
    "watch_model": ("cloister.watching.calling", "watch_model"),
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), own)
    return found


def __dir__() -> list[str]:
    return list(__all__)
