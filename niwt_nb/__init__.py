"""Classifiers for classes nobody photographed, from words alone: Neuron Importance-Aware Weight Transfer.

The names below are the front door; each is imported when it is first used. Everything else is reached through its module.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_DOOR = {
    "niwt": "NIWT",
    "fieldguide": "field_guide",
    "readers": "read_folder read_cub read_awa2 read_xlsa17",
    "network": "load_backbone cut Backbone",
    "importance": "neuron_importance class_importance",
    "transfer": "pooled_jacobian",
    "mapping": "RidgeMap",
    "evaluate": "gzsl",
    "explain": "grad_cam",
    "data": "ZeroShotData DomainKnowledge",
    "core": "NiwtError",
    "pipeline": "run",
    "runs": "RunConfig",
    "widgets": "NeuronExplorer MapExplorer SpeciesDesigner ExplanationViewer BalanceExplorer",
}
_HOME = {name: module for module, names in _DOOR.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    "Import a name of the front door when it is first asked for."
    if name not in _HOME:
        raise AttributeError(f"module 'niwt_nb' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"niwt_nb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    "What tab completion shows."
    return sorted([*globals(), *_HOME])
