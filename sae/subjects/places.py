"""Where TransformerLens' hookpoints lie in a Hugging Face model, and how to get at the tensors that pass there."""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Visitor = Callable[[Tensor], Tensor | None]
"""Sees the tensor at a place; what it returns, if anything, takes the tensor's place."""

_OF_BLOCK = (
    "hook_resid_pre",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_in",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)


@dataclass(frozen=True)
class Place:
    """The input or the output of a module; `in_place` where a residual connection has already kept the tensor."""

    module: nn.Module
    side: Literal["in", "out"]
    in_place: bool = False

    def visit(self, visitor: Visitor) -> Any:
        """Call `visitor` with the tensor on every pass, replace it by what is returned; returns the hook's handle."""

        def before(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if not positional and "hidden_states" not in named:
                return None
            new = visitor(positional[0] if positional else named["hidden_states"])
            if new is None:
                return None
            return ((new, *positional[1:]), named) if positional else (positional, named | {"hidden_states": new})

        def after(_: nn.Module, positional: tuple[Any, ...], output: Any) -> Any:
            new = visitor(output if isinstance(output, Tensor) else output[0])
            return new if new is None or isinstance(output, Tensor) else (new, *output[1:])

        if self.side == "in":
            return self.module.register_forward_pre_hook(before, with_kwargs=True)
        return self.module.register_forward_hook(after)


def find_places(adapter: Any, model: Any) -> dict[str, Place]:
    """Return where the hookpoints lie in the Hugging Face model, as TransformerLens' adapter describes it.

    Raises:
        ValueError: the adapter describes no single stack of blocks.
    """
    if "blocks" not in adapter.component_mapping:
        raise ValueError(f"TransformerLens describes no stack of blocks, only {', '.join(adapter.component_mapping)}")
    places = {}
    with suppress(AttributeError, ValueError):
        embed = adapter.get_component(model, "embed_ln" if "embed_ln" in adapter.component_mapping else "embed")
        places["hook_embed"] = Place(embed, "out")
    # An MLP that is spread over its block (BERT) has no module of its own; there its first layer receives its input.
    aliases = _aliases(adapter.component_mapping["blocks"]) | {"mlp.hook_in": ["mlp.hook_in", "mlp.in.hook_in"]}
    blocks = adapter.get_component(model, "blocks")
    for index in range(len(blocks)):
        for hook in _OF_BLOCK:
            for target in aliases.get(hook, ()):
                component, _, side = f"blocks.{index}.{target}".rpartition(".hook_")
                # Parts differ between the layers of a hybrid: what a layer lacks is no hookpoint there.
                with suppress(AttributeError, ValueError):
                    module = adapter.get_component(model, component)
                    if module is blocks[index] and component.endswith(".mlp"):
                        continue
                    place = Place(module, "in" if side == "in" else "out", in_place=hook == "hook_resid_mid")
                    places.setdefault(f"blocks.{index}.{hook}", place)
    return places


def find_final_norm(adapter: Any, model: Any) -> nn.Module | None:
    """Return the norm before the unembedding; None where there is none."""
    with suppress(AttributeError, ValueError):
        return adapter.get_component(model, "ln_final")
    return None


@torch.no_grad()
def final_norm_map(
    norm: nn.Module | None, d_model: int, device: torch.device
) -> tuple[Float[Tensor, " d_model"], bool]:
    """Return the weights of a layer norm or RMS norm, and whether it takes the mean off, by trying it out.

    How weights are kept differs between models (Gemma adds 1 to them), what they do does not: a vector of signs with
    mean 0 has standard deviation and root mean square 1.
    """
    if norm is None:
        return torch.ones(d_model, device=device), False
    assert d_model % 2 == 0, d_model
    norm = copy.deepcopy(norm).float()
    signs = torch.ones(d_model, device=device)
    signs[1::2] = -1
    weight = (norm(signs) - norm(-signs)) / 2 * signs
    centred = torch.allclose(norm(signs + 1), norm(signs), atol=1e-3)
    return weight, centred


def _aliases(component: Any, prefix: str = "") -> dict[str, list[str]]:
    """Collect TransformerLens' old names of hooks and, for each, the candidates it stands for, best first."""
    found: dict[str, list[str]] = {}
    for name, target in (component.hook_aliases or {}).items():
        targets = [target] if isinstance(target, str) else target
        found[prefix + name] = [prefix + t for t in targets if t.endswith(("hook_in", "hook_out"))]
    for name, part in component.submodules.items():
        found |= _aliases(part, f"{prefix}{name}.")
    return found
