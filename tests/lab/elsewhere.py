"""A device that is none: tensors that say they are on "meta" but compute on the CPU, and refuse to meet CPU tensors.

So a machine without an accelerator runs code as one with an accelerator would: what is on two devices at once is
refused here too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
_aten = torch.ops.aten
_COPIES = (_aten.copy_.default, _aten.copy.default)
_INDEXES = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
"""Places may be given from the CPU, to a tensor anywhere."""
_LITERALS = (torch.tensor, torch.as_tensor, torch.scalar_tensor)


class Elsewhere(Tensor):
    """A tensor on the device; what it holds is `inner`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        dense: dict[str, Any] = {}
        if inner.layout == torch.strided:
            dense = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, layout=inner.layout, device=DEVICE, **dense
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("this tensor is elsewhere; copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Made(TorchDispatchMode):
    """Makes tensors there where they are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Puts numbers from Python there, which no dispatch sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in _LITERALS and given.get("device") is not None:
            return func(*args, **given | {"device": "cpu"}).to(given["device"])
        return func(*args, **given)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    asked = kwargs.get("device")
    there = _there(func, args, kwargs) if asked is None else torch.device(asked).type == DEVICE
    inner = {name: "cpu" if name == "device" and there else value for name, value in kwargs.items()}
    out = func(*tree_map(_inner, args), **tree_map(_inner, inner))
    if func._schema.is_mutable and isinstance(out, Tensor):
        return args[0]
    if not there:
        return out
    wrapped = tree_map(lambda one: Elsewhere(one) if isinstance(one, Tensor) else one, out)
    if any(one.alias_info is not None for one in func._schema.arguments):
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


def _there(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether tensors are there, all of them but numbers, places and what is copied."""
    given = tree_leaves((args, kwargs))
    if func in _COPIES:
        given = [args[0]]
    if func in _INDEXES and isinstance(args[0], Elsewhere):
        given = [args[0], *args[2:3]]
    # A number on the CPU may meet a tensor anywhere, but not the other way round.
    tensors = [one for one in given if isinstance(one, Tensor) and (isinstance(one, Elsewhere) or one.ndim)]
    there = [isinstance(one, Elsewhere) for one in tensors]
    if any(there) and not all(there):
        shapes = ", ".join(f"{tuple(one.shape)} {'there' if isinstance(one, Elsewhere) else 'here'}" for one in tensors)
        raise RuntimeError(f"{func}: tensors on two devices: {shapes}")
    return any(there)


def _inner(one: Any) -> Any:
    return one.inner if isinstance(one, Elsewhere) else one


@contextmanager
def device() -> Iterator[str]:
    """Yield the name of a device that exists as long as this lasts."""
    with _Literals(), _Made():
        yield DEVICE
