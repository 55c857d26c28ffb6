"""The type checker of the tests: shapes and dtypes of tensors at every function of the package, and nothing else.

Other hints are left to pyright, so that a test may hand in a simple double where a protocol is asked for.
"""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray

Target = TypeVar("Target", bound=Callable[..., Any])


def checked(target: Target) -> Target:
    hints = getattr(target, "__annotations__", {})
    if isinstance(target, type) or not any(map(_has_shape, hints.values())):
        return target
    target.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return beartype(target)


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, list):
        return any(map(_has_shape, hint))
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_shape, get_args(hint)))
