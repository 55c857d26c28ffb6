"""Attention heads of an image tower, and running it with some of them taken out.

A head is the columns of the projection behind its attention that read it. Taking it out puts its mean contribution in
its place, in the projection's bias: for the length of one block, and with no need to look inside the attention.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Head:
    """One head: where it is, and what reads it."""

    layer: str
    number: int
    attention: nn.Module
    projection: Any
    columns: slice

    @property
    def name(self) -> str:
        return f"{self.layer}.{self.number}"


def attention_heads(subject: Any, last_layers: int | None = None) -> list[Head]:
    """Return the heads of an image tower, of a ModifiedResNet those of its attention pool; none of another kind.

    Args:
        subject: a CLIP model.
        last_layers: only of so many layers at its end; all of them if not given.
    """
    visual: Any = getattr(getattr(subject, "model", None), "visual", None)
    layers: list[tuple[str, Any, Any]] = []
    if hasattr(visual, "attnpool"):
        layers = [("visual.attnpool", visual.attnpool, visual.attnpool.c_proj)]
    elif hasattr(visual, "transformer"):
        blocks = enumerate(visual.transformer.resblocks)
        layers = [(f"visual.blocks.{i}.attn", block.attn, block.attn.out_proj) for i, block in blocks]
    elif hasattr(visual, "trunk"):
        blocks = enumerate(getattr(visual.trunk, "blocks", []))
        layers = [(f"visual.blocks.{i}.attn", block.attn, block.attn.proj) for i, block in blocks]
    found = []
    for name, attention, projection in layers[-last_layers:] if last_layers else layers:
        width = projection.weight.shape[1] // attention.num_heads
        found += [
            Head(name, i, attention, projection, slice(i * width, (i + 1) * width)) for i in range(attention.num_heads)
        ]
    return found


@contextmanager
def without_heads(heads: Sequence[Head], means: Mapping[str, Float[Tensor, " d_out"]]) -> Iterator[None]:
    """Run the block without some heads, with the mean contribution of each in its place.

    Args:
        heads: to take out.
        means: by name of a head, as `mean_contributions` gives them; zero where there is none.
    """
    saved = {id(head.projection): (head.projection, *_parameters(head.projection)) for head in heads}
    try:
        with torch.no_grad():
            for head in heads:
                head.projection.weight[:, head.columns] = 0
                if head.name in means:
                    head.projection.bias += means[head.name].to(head.projection.bias)
        yield
    finally:
        with torch.no_grad():
            for projection, weight, bias in saved.values():
                projection.weight.copy_(weight)
                projection.bias.copy_(bias)


@torch.no_grad()
def mean_contributions(heads: Sequence[Head], run: Callable[[], object]) -> dict[str, Float[Tensor, " d_out"]]:
    """Return what each head adds on average behind its projection, over examples and positions.

    Args:
        heads: of any layers.
        run: runs the subject on the examples.
    """
    return {head.name: _alone(head, run) for head in heads}


def _alone(head: Head, run: Callable[[], object]) -> Float[Tensor, " d_out"]:
    """Keep one head of a layer, so that the mean output of the attention less the bias is the head's."""
    total, count = torch.zeros(len(head.projection.bias), dtype=torch.float64), 0

    def add(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal total, count
        rows = (output[0] if isinstance(output, tuple) else output).detach().flatten(0, -2).double().cpu()
        total, count = total + rows.sum(0), count + len(rows)

    weight, bias = _parameters(head.projection)
    handle = head.attention.register_forward_hook(add)
    try:
        kept = torch.zeros_like(weight)
        kept[:, head.columns] = weight[:, head.columns]
        head.projection.weight.copy_(kept)
        run()
    finally:
        handle.remove()
        head.projection.weight.copy_(weight)
    return (total / count - bias.double().cpu()).float()


def _parameters(projection: Any) -> tuple[Tensor, Tensor]:
    return projection.weight.detach().clone(), projection.bias.detach().clone()
