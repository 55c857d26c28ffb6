"""The hookpoints of CLIP's two towers: at which module each one is, and the grid its rows lie on.

Four kinds of tower are known, by the attributes of their modules: open_clip's own transformers, its ModifiedResNet
(RN50, RN50x4, ...), timm vision transformers (SigLIP) and Hugging Face encoders of the BERT family. Of any other tower
only the embedding can be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from sae.subjects.base import Hookpoint
from sae.subjects.clip_sites import Site
from sae.tensors import Kind

Module = Any
"""A torch module whose attributes only the library that made it can type."""

_TIMM_PRE_NORM_BLOCKS = {"Block", "EvaBlock"}


@dataclass(frozen=True)
class PatchGrid:
    """Positions over an image: `prefix` lists what stands before the patches, which follow row by row."""

    n_rows: int
    n_columns: int
    prefix: tuple[Kind, ...] = ()

    def kinds(self) -> UInt8[Tensor, " pos"]:
        """Return the `Kind` of every position."""
        return torch.tensor([*self.prefix, *[Kind.PATCH] * (self.n_rows * self.n_columns)], dtype=torch.uint8)

    def box(self, position: int, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom pixel of a position in a frame of (height, width).

        A class token or register stands for the whole frame. In a ResNet the box is the cell that the position
        stands on, not the larger field it can see.
        """
        height, width = image_size
        row, column = divmod(position - len(self.prefix), self.n_columns)
        if row < 0:
            return 0, 0, width, height
        left, right = column * width // self.n_columns, (column + 1) * width // self.n_columns
        return left, row * height // self.n_rows, right, (row + 1) * height // self.n_rows


@dataclass(frozen=True)
class _Block:
    """The modules of a transformer block between which its activations pass.

    `attn_out` and `mlp_out` yield what is added to the residual stream, `middle` is given the stream in between, `mlp`
    what the MLP alone is given, and `down` is the MLP's last linear layer, whose input are the activations of the MLP's
    neurons.
    """

    whole: Module
    attn_out: Module
    middle: Module
    mlp: Module
    down: Module
    mlp_out: Module

    def sites(self, prefix: str, grid: str) -> Iterator[Site]:
        """Yield the sites of the block in the order in which they are reached."""
        d_model, d_mlp = self.down.out_features, self.down.in_features
        yield Site(Hookpoint(f"{prefix}.hook_resid_pre", d_model, grid), self.whole, "input")
        yield Site(Hookpoint(f"{prefix}.hook_attn_out", d_model, grid), self.attn_out, "output")
        yield Site(Hookpoint(f"{prefix}.hook_resid_mid", d_model, grid), self.middle, "stream")
        yield Site(Hookpoint(f"{prefix}.mlp.hook_in", d_model, grid), self.mlp, "input")
        yield Site(Hookpoint(f"{prefix}.mlp.hook_post", d_mlp, grid), self.down, "input")
        yield Site(Hookpoint(f"{prefix}.hook_mlp_out", d_model, grid), self.mlp_out, "output")
        yield Site(Hookpoint(f"{prefix}.hook_resid_post", d_model, grid), self.whole, "output")


def visual_sites(visual: Module, image_size: tuple[int, int]) -> tuple[list[Site], dict[str, PatchGrid]]:
    """Return the sites of an image tower in the order reached, and its grids by name.

    `image_size` is (height, width) in pixels.
    """
    if hasattr(visual, "attnpool"):
        return _resnet_sites(visual, image_size)
    if hasattr(visual, "trunk"):
        trunk = visual.trunk
        blocks = [_timm_block(block) for block in getattr(trunk, "blocks", []) if _is_timm_pre_norm(block)]
        if not blocks:
            return [], {}
        n_prefix = trunk.num_prefix_tokens
        class_token = (Kind.CLASS,) if getattr(trunk, "cls_token", None) is not None else ()
        prefix = class_token + (Kind.SPECIAL,) * (n_prefix - len(class_token))
        n_rows, n_columns = trunk.patch_embed.dynamic_feat_size(image_size)
        grid = PatchGrid(n_rows, n_columns, prefix)
    else:
        blocks = [_native_block(block) for block in visual.transformer.resblocks]
        n_rows, n_columns = visual.grid_size
        grid = PatchGrid(n_rows, n_columns, (Kind.CLASS,))
    return _transformer_sites(blocks, "visual"), {"visual.tokens": grid}


def text_sites(text: Module) -> list[Site]:
    """Return the sites of a text tower in the order reached.

    In a BERT-like tower the norms stand after each addition: there `hook_resid_mid` and `hook_resid_post` are read
    behind them, and are what the next module receives.
    """
    transformer = text.transformer
    if hasattr(transformer, "resblocks"):
        blocks = [_native_block(block) for block in transformer.resblocks]
    else:
        layers = getattr(getattr(transformer, "encoder", None), "layer", [])
        blocks = [_bert_block(layer) for layer in layers]
    return _transformer_sites(blocks, "text")


def _transformer_sites(blocks: list[_Block], tower: str) -> list[Site]:
    return [site for i, block in enumerate(blocks) for site in block.sites(f"{tower}.blocks.{i}", f"{tower}.tokens")]


def _native_block(block: Module) -> _Block:
    return _Block(block, block.ls_1, block.ln_2, block.mlp, block.mlp.c_proj, block.ls_2)


def _is_timm_pre_norm(block: Module) -> bool:
    return type(block).__name__ in _TIMM_PRE_NORM_BLOCKS and hasattr(block.mlp, "fc2")


def _timm_block(block: Module) -> _Block:
    return _Block(block, block.drop_path1, block.norm2, block.mlp, block.mlp.fc2, block.drop_path2)


def _bert_block(layer: Module) -> _Block:
    attention, mlp, down = layer.attention.output.dense, layer.intermediate, layer.output.dense
    return _Block(layer, attention, mlp, mlp.dense, down, down)


def _resnet_sites(visual: Module, image_size: tuple[int, int]) -> tuple[list[Site], dict[str, PatchGrid]]:
    """Return the output of every bottleneck, after its ReLU; stage s has one position per 2 * 2^s pixels square."""
    sites, grids = [], {}
    for number in (1, 2, 3, 4):
        stage, name = getattr(visual, f"layer{number}"), f"visual.layer{number}"
        stride = 2 * 2**number
        grids[name] = PatchGrid(image_size[0] // stride, image_size[1] // stride)
        for i, bottleneck in enumerate(stage):
            hookpoint = Hookpoint(f"{name}.{i}.hook_post", bottleneck.conv3.out_channels, name)
            sites.append(Site(hookpoint, bottleneck, "output", spatial=True))
    return sites, grids
