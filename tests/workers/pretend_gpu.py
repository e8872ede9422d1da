"""A GPU that is not there: tensors that lie on the device "gpu:0", are computed on the CPU, and refuse to meet tensors of the CPU.

Importing this changes the process for good, and must come before its first backward pass; PyTorch calls what it stands on experimental.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("gpu")
# as CUDA, these take indices or sources from the CPU
_MIXED = ("index.", "index_put", "_index_put", "copy_", "_to_copy", "_foreach_copy_")


class Away(torch.Tensor):
    "A tensor on the pretended GPU; `here` is what it holds."

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "Away":
        how = {
            "strides": here.stride(),
            "storage_offset": here.storage_offset(),
            "dtype": here.dtype,
            "layout": here.layout,
            "device": "gpu:0",
        }
        made = torch.Tensor._make_wrapper_subclass(cls, here.size(), **how)
        made.here = here
        return made

    def __repr__(self):
        return f"Away({self.here})"

    def tolist(self) -> list:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args: tuple, kwargs: dict):
    "An operation on tensors of which all lie on the pretended GPU or none, as CUDA wants it."
    tensors, name, device = (
        [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)],
        str(func.__name__),
        kwargs.get("device"),
    )
    away = any(isinstance(x, Away) for x in tensors)
    if not away and (device is None or torch.device(device).type != "gpu"):
        return func(*args, **kwargs)
    if (
        away
        and not name.startswith(_MIXED)
        and any(x.ndim and not isinstance(x, Away) for x in tensors)
    ):
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, found gpu:0 and cpu"
        )
    if device is not None:
        away = torch.device(device).type == "gpu"
        kwargs = {**kwargs, "device": torch.device("cpu")} | (
            {"pin_memory": None} if "pin_memory" in kwargs else {}
        )
    bare = lambda x: x.here if isinstance(x, Away) else x  # noqa: E731
    found = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    if func._schema.is_mutable and name.split(".")[0].endswith("_"):
        return args[0] if func._schema.returns else None
    return (
        tree_map(lambda x: Away(x) if isinstance(x, torch.Tensor) else x, found)
        if away and not name.startswith("_local_scalar")
        else found
    )


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


# for what PyTorch does below the dispatch to Python: lists as indices, `torch.tensor`
_KERNELS = torch.library.Library("aten", "IMPL")
_KERNELS.impl(
    "empty_strided",
    lambda size, stride, dtype=None, **other: Away(torch.empty_strided(size, stride, dtype=dtype)),
    "PrivateUse1",
)
_KERNELS.impl(
    "copy_", lambda to, source, blocking=False: (to.here.copy_(source), to)[1], "PrivateUse1"
)


@contextmanager
def pretend():
    "Inside the block there is a device gpu:0."
    with _Mode():
        yield torch.device("gpu:0")
