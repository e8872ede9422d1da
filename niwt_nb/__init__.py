"""Classifiers for classes nobody photographed, from words alone: Neuron Importance-Aware Weight Transfer.

The names below are the front door; each is imported when it is first used. Everything else is reached through its room.
"""

import importlib
import os
from typing import Any

# Linux: pages of 2 MiB for large tensors. With small ones a forward pass spends more time on pages than on numbers (reference/results/timing).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_DOOR = {
    "method.niwt": "NIWT",
    "fieldguide.world": "field_guide",
    "data.folder": "read_folder",
    "data.cub": "read_cub",
    "data.awa2": "read_awa2",
    "data.xlsa17": "read_xlsa17",
    "network.backbones": "load_backbone Backbone",
    "network.cut": "cut",
    "method.engine": "neuron_importance class_importance",
    "method.jacobian": "pooled_jacobian",
    "method.mapping": "RidgeMap",
    "method.metrics": "gzsl",
    "explain.maps": "grad_cam",
    "data.dataset": "ZeroShotData DomainKnowledge",
    "core": "NiwtError",
    "runs.pipeline": "run",
    "runs.config": "RunConfig",
    "widgets.neurons": "NeuronExplorer",
    "widgets.maps": "MapExplorer",
    "widgets.designer": "SpeciesDesigner",
    "widgets.explanations": "ExplanationViewer",
    "widgets.balance": "BalanceExplorer",
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
