"""Reading and replacing activations where they pass through the modules of a CLIP model.

Plain hooks, on the modules that are needed and on no others, for the length of one forward pass.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sae.subjects.base import Activation, Edit, Hookpoint

_BLOCK_ENDS = (".hook_resid_post", ".hook_post")


class _Reached(Exception):  # noqa: N818  (nothing is wrong)
    """Leaves the forward pass after the last activation that was asked for."""


@dataclass(frozen=True)
class Site:
    """The place of a hookpoint: at a module's input or output.

    "stream" is an input that the caller of the module goes on using, so replacing it means writing into it: both
    pre-norm and BERT blocks hand their MLP the very tensor to which they then add its output. `spatial` activations
    are [example channels height width] and become [example pos channels].
    """

    hookpoint: Hookpoint
    module: nn.Module
    side: Literal["input", "output", "stream"]
    spatial: bool = False

    def attach(self, visit: Callable[[Activation], Activation | None]) -> RemovableHandle:
        """Have `visit` called whenever the activation passes; unless it returns None, its result goes on instead."""
        if self.side == "output":
            return self.module.register_forward_hook(lambda _, __, output: self._at_output(output, visit))
        return self.module.register_forward_pre_hook(lambda _, arguments: self._at_input(arguments, visit))

    def _at_input(self, arguments: tuple[Any, ...], visit: Callable[[Activation], Activation | None]) -> Any:
        activation = arguments[0]
        # A copy, because autograd may keep what `visit` saw and the original is about to be overwritten.
        new = visit(activation.clone() if self.side == "stream" else activation)
        if new is None:
            return None
        if self.side == "stream":
            activation.copy_(new)
            return None
        return (new, *arguments[1:])

    def _at_output(self, output: Any, visit: Callable[[Activation], Activation | None]) -> Any:
        if isinstance(output, tuple):  # BERT layers of transformers < 5 return (hidden_states, ...)
            new = visit(output[0])
            return None if new is None else (new, *output[1:])
        if not self.spatial:
            return visit(output)
        new = visit(output.flatten(2).transpose(1, 2))
        return None if new is None else new.transpose(1, 2).reshape(output.shape)


@contextmanager
def reading(sites: Iterable[Site], last: str, linked: bool = False) -> Iterator[dict[str, Activation]]:
    """Collect the activations at `sites` by hookpoint, leaving the block as soon as the one named `last` has passed.

    Where `linked`, the subject goes on with what was collected, so that later ones have gradients with respect to it.
    """
    found: dict[str, Activation] = {}

    def visitor(name: str) -> Callable[[Activation], Activation | None]:
        def visit(activation: Activation) -> Activation | None:
            found[name] = activation
            if name == last:
                raise _Reached
            return activation if linked else None

        return visit

    with ExitStack() as hooks, suppress(_Reached):
        for site in sites:
            hooks.callback(site.attach(visitor(site.hookpoint.name)).remove)
        yield found


@contextmanager
def editing(sites: Iterable[Site], edits: Mapping[str, Edit]) -> Iterator[None]:
    """Replace the activations at `sites` by what the edits of their hookpoints return."""
    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.attach(edits[site.hookpoint.name]).remove)
        yield


def blocks_up_to(sites: Iterable[Site], hookpoint: str) -> list[Site]:
    """Return the sites at the ends of a tower's blocks up to the named one; none where it is not such an end."""
    ends = [site for site in sites if site.side == "output" and site.hookpoint.name.endswith(_BLOCK_ENDS)]
    names = [site.hookpoint.name for site in ends]
    return ends[: names.index(hookpoint) + 1] if hookpoint in names else []


@contextmanager
def skipping(blocks: Sequence[Site], output: Tensor) -> Iterator[None]:
    """Let the modules of blocks do nothing, and the last of them return `output`."""
    with ExitStack() as restored:
        for site in blocks:
            # An attribute of the instance hides the method of its class until it is deleted.
            site.module.forward = _unchanged
            restored.callback(delattr, site.module, "forward")
        blocks[-1].module.forward = lambda *_, **__: output
        yield


def _unchanged(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden
