"""A latent in the terminal: its strongest examples, tokens shaded by activation, images with the active patches lit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.columns import Columns
from rich.console import Console, Group
from rich.style import Style
from rich.text import Text
from torch import Tensor

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import hookpoints_read
from sae.errors import ConfigError
from sae.features.examples import Chunk, Example, live_chunks, stored_chunks, top_examples
from sae.inputs.base import Inputs
from sae.subjects.base import Subject
from sae.tensors import Batch, Kind

SHADE = (255, 140, 0)
IMAGE_SIDE = 32
"""Pixels, and so columns of characters, of a drawn image; a line shows two rows of pixels."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Which latent to show, and from what."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    latent: int
    """Number of the latent."""
    store: Path | None = None
    """Store to search; without one the subject runs over its built-in text or images."""
    examples: int = 8
    """How many examples to print."""
    context: int = 12
    """Tokens printed on either side of the strongest one."""
    scan: int = 1000
    """Examples to search when there is no store."""

    def __post_init__(self) -> None:
        for name in ("examples", "context", "scan"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")


def chunks_for(config: ShowConfig, dictionary: Dictionary, subject: Subject, inputs: Inputs) -> Iterator[Chunk]:
    """Return the vectors to search: those of the store, or the subject's own as it runs."""
    hookpoints = hookpoints_read(dictionary)
    if config.store is not None:
        return stored_chunks(ActivationStore(config.store), hookpoints)
    return live_chunks(subject, inputs, hookpoints, config.scan)


def show(config: ShowConfig, dictionary: Dictionary, subject: Subject, inputs: Inputs, out: Console) -> None:
    """Print the strongest examples of a latent."""
    chunks = chunks_for(config, dictionary, subject, inputs)
    found = top_examples(dictionary, chunks, [config.latent], config.examples)[config.latent]
    out.print(Text(f"latent {config.latent} of {dictionary!r}", style="bold"))
    if not found:
        out.print("It does not fire on anything searched.")
    drawn = []
    for example in found:
        batch = inputs.batch(example.example, example.example + 1)
        if hookpoints_read(dictionary)[0].startswith("visual."):
            assert batch.images is not None
            lit = patch_values(subject, dictionary, batch, example)
            evidence = picture(batch.images[0], lit) if out.color_system else caption(inputs, example)
        else:
            assert batch.tokens is not None
            decode = token_decoder(subject)
            evidence = shaded_tokens([decode(int(t)) for t in batch.tokens[0]], example, config.context)
        where = Text(f"{example.value:.3f}  example {example.example}, position {example.position}", style="dim")
        drawn.append(Group(where, evidence))
    # Pictures stand side by side as far as the terminal is wide; a line of tokens takes its width.
    out.print(Columns(drawn, padding=(1, 2)))


def token_decoder(subject: Any) -> Callable[[int], str]:
    """Return what spells a token of the subject, with the space before it where it begins a word."""
    # A text tower's tokenizer is open_clip's own, or has that of Hugging Face within.
    tokenizer = getattr(subject.tokenizer, "tokenizer", subject.tokenizer)
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        return lambda token: tokenizer.decode([token])
    # On its own a token loses its space, and one that goes on with a word keeps the mark of it ("##").
    before = tokenizer.encode("a", add_special_tokens=False)
    spelled = tokenizer.decode(before)
    return lambda token: tokenizer.decode([*before, token]).removeprefix(spelled)


def shaded_tokens(pieces: Sequence[str], example: Example, context: int) -> Text:
    """Return the tokens around the strongest one, each shaded by its activation relative to the strongest.

    On a terminal without colours the strongest token is the one in brackets.
    """
    activation = dict(zip(example.positions.tolist(), example.activations.tolist(), strict=True))
    text = Text()
    for position in range(max(0, example.position - context), min(len(pieces), example.position + context + 1)):
        share = activation.get(position, 0.0) / example.value
        piece = pieces[position].replace("\n", "⏎").replace("\t", "→")
        if position == example.position:
            piece = f"[{piece}]"
        red, green, blue = (round(255 - share * (255 - channel)) for channel in SHADE)
        shade = Style(color="black", bgcolor=f"rgb({red},{green},{blue})") if share > 0 else Style()
        text.append(piece, style=shade)
    return text


def patch_values(
    subject: Any, dictionary: Dictionary, batch: Batch, example: Example
) -> Float[Tensor, "rows columns"] | None:
    """Lay the activations out on the subject's patch grid, in [0, 1]; None where the grid has no patches."""
    grid = subject.hookpoints()[hookpoints_read(dictionary)[0]].grid
    if grid.endswith("pooled"):
        return None
    # A class token, registers, or nothing: what stands before the patches differs between vision transformers.
    kinds = subject.rows(batch, grid).kind[0]
    values = torch.zeros(len(kinds))
    values[example.positions.long()] = example.activations
    return (values[kinds == Kind.PATCH] / example.value).view(subject.patch_grid(grid))


def caption(inputs: Any, example: Example) -> Text:
    """Say in words what an image shows, for where it cannot be drawn."""
    if not hasattr(inputs, "references"):
        return Text("(an image; use a terminal with colours to see it)")
    (reference,) = inputs.references(example.example, example.example + 1)
    return Text(", ".join(f"{key}: {value}" for key, value in reference.items()))


def picture(image: UInt8[Tensor, "3 height width"], lit: Float[Tensor, "rows columns"] | None) -> Text:
    """Draw an image with half blocks, two pixels to a character, dimmed where the latent is silent."""
    size = (IMAGE_SIDE, IMAGE_SIDE)
    pixels = torch.nn.functional.interpolate(image[None].float(), size=size, mode="area")[0]
    if lit is not None:
        heat = torch.nn.functional.interpolate(lit[None, None], size=size, mode="bilinear", align_corners=False)[0]
        pixels = pixels * (0.45 + 0.55 * heat)
    array = pixels.clamp(0, 255).byte().permute(1, 2, 0).numpy()
    text = Text()
    for upper, lower in zip(array[::2], array[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style=Style(color=_rgb(above), bgcolor=_rgb(below)))
        text.append("\n")
    return text


def _rgb(pixel: UInt8[np.ndarray, " 3"]) -> str:
    return f"rgb({pixel[0]},{pixel[1]},{pixel[2]})"
