"""Taking attention heads out, beside attention computed by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_clip import save_clip

from sae.subjects.heads import attention_heads, mean_contributions, without_heads
from sae.subjects.load import load
from sae.tensors import Batch


def opened(folder: Path, kind: str) -> tuple[Any, Batch]:
    subject = load(f"clip:{save_clip(folder, kind)}")
    side = 64 if kind == "resnet" else 32
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, side, side), generator=generator, dtype=torch.uint8)
    return subject, Batch(first_example=0, images=images)


def pooled(pool: Any, x: torch.Tensor, gone: tuple[int, ...] = ()) -> torch.Tensor:
    """Compute an attention pool of ModifiedResNet by hand, without some heads."""
    tokens = x.flatten(2).permute(0, 2, 1)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    n, width = pool.num_heads, tokens.shape[-1] // pool.num_heads
    split = lambda y: y.unflatten(-1, (n, width)).transpose(1, 2)  # noqa: E731
    q, k, v = (split(part(tokens)) for part in (pool.q_proj, pool.k_proj, pool.v_proj))
    weights = (q[:, :, :1] @ k.transpose(2, 3) / width**0.5).softmax(-1)
    out = (weights @ v)[:, :, 0]
    out[:, list(gone)] = 0
    return pool.c_proj(out.flatten(1))


def test_the_attention_pool_without_heads_is_what_the_others_give(tmp_path: Path) -> None:
    subject, batch = opened(tmp_path, "resnet")
    heads, pool = attention_heads(subject), subject.model.visual.attnpool
    assert [head.name for head in heads] == [f"visual.attnpool.{i}" for i in range(pool.num_heads)]
    seen: dict[str, torch.Tensor] = {}
    handle = pool.register_forward_hook(lambda _, given, out: seen.update(x=given[0], out=out))
    with torch.no_grad():
        subject.forward(batch)
        assert torch.allclose(seen["out"], pooled(pool, seen["x"]), atol=1e-5)
        gone = (0, pool.num_heads - 1)
        with without_heads([heads[i] for i in gone], {}):
            subject.forward(batch)
        assert torch.allclose(seen["out"], pooled(pool, seen["x"], gone), atol=1e-5)
    handle.remove()


@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_contributions_of_all_heads_and_the_bias_make_the_mean_output(kind: str, tmp_path: Path) -> None:
    subject, batch = opened(tmp_path, kind)
    heads = attention_heads(subject, last_layers=1)
    means = mean_contributions(heads, lambda: subject.forward(batch))
    outputs: list[Any] = []
    handle = heads[0].attention.register_forward_hook(
        lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out)  # type: ignore[index]
    )
    subject.forward(batch)
    mean = outputs[0].flatten(0, -2).mean(0)
    assert torch.allclose(sum(means.values()) + heads[0].projection.bias, mean, atol=1e-4)
    with without_heads(heads, means):
        subject.forward(batch)
    handle.remove()
    assert torch.allclose(outputs[1].flatten(0, -2), mean.expand(len(outputs[1].flatten(0, -2)), -1), atol=1e-4)


def test_the_subject_is_as_it_was_afterwards_whatever_happens(tmp_path: Path) -> None:
    subject, batch = opened(tmp_path, "vit")
    heads = attention_heads(subject)
    assert len({head.layer for head in heads}) == 2 and len(attention_heads(subject, 1)) == len(heads) // 2
    before = subject.forward(batch).image
    means = mean_contributions(heads[:1], lambda: subject.forward(batch))
    with pytest.raises(RuntimeError, match="stop"), without_heads(heads, means):
        assert not torch.allclose(subject.forward(batch).image, before, atol=1e-4)
        raise RuntimeError("stop")
    assert torch.equal(subject.forward(batch).image, before)


def test_a_tower_of_another_kind_has_no_known_heads() -> None:
    assert attention_heads(SimpleNamespace(model=SimpleNamespace(visual=object()))) == []
