from typing import Any

import pytest
import torch

from sae.activations.store import Provenance, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import IdentityConfig
from sae.dictionaries.registry import make_dictionary
from sae.errors import DictionaryError, HookpointError
from sae.features.examples import Chunk, Example, live_chunks, stored_chunks, top_examples
from sae.features.show import patch_values, picture, shaded_tokens
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows

N_EXAMPLES, ROWS, WIDTH = 20, 6, 4


@pytest.fixture
def identity() -> Dictionary:
    return make_dictionary(IdentityConfig(d_sae=WIDTH), WIDTH)


@pytest.fixture
def x() -> torch.Tensor:
    x = torch.randn(N_EXAMPLES * ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    x[:, 3] = -x[:, 3].abs()
    return x


def chunks(x: torch.Tensor, examples_per_chunk: int) -> list[Chunk]:
    size = examples_per_chunk * ROWS
    rows = torch.arange(len(x))
    return [
        Chunk(x[i : i + size], rows[i : i + size] // ROWS, rows[i : i + size] % ROWS) for i in range(0, len(x), size)
    ]


@pytest.mark.parametrize("examples_per_chunk", [1, 7, 20])
def test_strongest_examples_first_each_once(identity: Dictionary, x: torch.Tensor, examples_per_chunk: int) -> None:
    found = top_examples(identity, chunks(x, examples_per_chunk), [1, 2], n=5)
    for latent in (1, 2):
        peaks, positions = x[:, latent].view(N_EXAMPLES, ROWS).max(1)
        order = peaks.argsort(descending=True)[:5]
        assert [e.example for e in found[latent]] == order.tolist()
        assert [e.position for e in found[latent]] == positions[order].tolist()
        assert [e.value for e in found[latent]] == pytest.approx(peaks[order].tolist())
        first = found[latent][0]
        expected = x.view(N_EXAMPLES, ROWS, WIDTH)[first.example, :, latent].clamp(min=0)
        torch.testing.assert_close(first.activations, expected)


@pytest.mark.parametrize("chunk_vectors", [4, 6, 7, 1000])
def test_chunks_hold_whole_examples_also_those_longer_than_a_chunk(x: torch.Tensor, chunk_vectors: int) -> None:
    rows = torch.arange(len(x))
    place = {"example": rows // ROWS, "position": (rows % ROWS).int(), "kind": torch.zeros(len(x), dtype=torch.uint8)}

    class Stored:
        whole_examples = Vectors.whole_examples

        def vectors(self, hookpoint: str, kinds: object) -> "Stored":
            return self

        def __len__(self) -> int:
            return len(x)

        def read(self, start: int, stop: int) -> torch.Tensor:
            return x[start:stop]

        def provenance(self, start: int, stop: int) -> Provenance:
            return Provenance(**{name: column[start:stop] for name, column in place.items()})

    read = list(stored_chunks(Stored(), "here", chunk_vectors))  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat([chunk.x for chunk in read]), x)
    assert all(len(chunk.x) % ROWS == 0 for chunk in read)


class Layers:
    """A subject whose vectors are example, position and layer; position 0 is a BOS."""

    id = "layers"

    def hookpoints(self) -> dict[str, Hookpoint]:
        grids = {"one": "tokens", "two": "tokens", "other": "visual.tokens"}
        return {name: Hookpoint(name, 3, grid) for name, grid in grids.items()}

    def run(self, batch: Batch, hookpoints: list[str]) -> dict[str, torch.Tensor]:
        place = torch.cartesian_prod(torch.arange(2), torch.arange(ROWS)).view(2, ROWS, 2).float()
        place[..., 0] += batch.first_example
        layers = {"one": 1.0, "two": 2.0, "other": 3.0}
        return {name: torch.cat([place, torch.full((2, ROWS, 1), layers[name])], 2) for name in hookpoints}

    def rows(self, batch: Batch, grid: str) -> Rows:
        kind = torch.full((2, ROWS), int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = int(Kind.BOS)
        return Rows(keep=torch.ones(2, ROWS, dtype=torch.bool), kind=kind)


class Pairs:
    def __len__(self) -> int:
        return 6

    def batch(self, start: int, stop: int) -> Batch:
        return Batch(first_example=start)


def test_a_running_subject_gives_several_hookpoints_side_by_side() -> None:
    subject: Any = Layers()
    inputs: Any = Pairs()
    found = list(live_chunks(subject, inputs, ["two", "one"], 4, batch_examples=2))
    x = torch.cat([chunk.x for chunk in found])
    places = torch.cartesian_prod(torch.arange(4), torch.arange(1, ROWS)).float()
    assert torch.equal(x[:, :2], places) and torch.equal(x[:, 3:5], places)
    assert x[:, 2].eq(2).all() and x[:, 5].eq(1).all()
    assert torch.equal(torch.cat([chunk.example for chunk in found]), places[:, 0].long())
    with pytest.raises(HookpointError, match="different grids"):
        list(live_chunks(subject, inputs, ["one", "other"], 4))
    with pytest.raises(HookpointError, match="Did you mean 'one'"):
        list(live_chunks(subject, inputs, "on", 4))


def test_a_silent_latent_has_no_examples(identity: Dictionary, x: torch.Tensor) -> None:
    assert top_examples(identity, chunks(x, 4), [3]) == {3: []}


def test_latents_are_numbered(identity: Dictionary, x: torch.Tensor) -> None:
    with pytest.raises(DictionaryError, match="no latent 4; they are numbered 0 to 3"):
        top_examples(identity, chunks(x, 4), [4])


def test_the_strongest_token_is_bracketed_and_active_ones_are_shaded(identity: Dictionary, x: torch.Tensor) -> None:
    example = top_examples(identity, chunks(x, 4), [1], n=1)[1][0]
    text = shaded_tokens(list("abcdef"), example, context=10)
    assert f"[{'abcdef'[example.position]}]" in text.plain
    shaded = {text.plain[span.start : span.end].strip("[]") for span in text.spans if "on rgb" in str(span.style)}
    active = {
        "abcdef"[p] for p, a in zip(example.positions.tolist(), example.activations.tolist(), strict=True) if a > 0
    }
    assert shaded == active


def test_a_picture_is_drawn_two_pixels_to_a_character() -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[0] = 255
    text = picture(image, None)
    assert text.plain.count("▀") == 16 * 32
    assert all("rgb(255,0,0)" in str(span.style) for span in text.spans if "▀" in text.plain[span.start : span.end])


@pytest.mark.parametrize("before", [(), (Kind.CLASS,), (Kind.CLASS, Kind.SPECIAL)])
def test_patches_are_laid_out_whatever_stands_before_them(identity: Dictionary, before: tuple[Kind, ...]) -> None:
    kind = torch.tensor([[*before, *[Kind.PATCH] * 6]], dtype=torch.uint8)

    class Eye:
        def hookpoints(self) -> dict[str, Hookpoint]:
            return {"visual.blocks.0.hook_resid_post": Hookpoint("visual.blocks.0.hook_resid_post", 4, "visual.tokens")}

        def rows(self, batch: Batch, grid: str) -> Rows:
            return Rows(keep=torch.ones_like(kind, dtype=torch.bool), kind=kind)

        def patch_grid(self, grid: str) -> tuple[int, int]:
            return 2, 3

    identity.provenance = {"hookpoint": "visual.blocks.0.hook_resid_post"}
    positions = torch.tensor([0, 4], dtype=torch.int32) + len(before)
    example = Example(4.0, 0, int(positions[1]), positions, torch.tensor([1.0, 4.0]))
    lit = patch_values(Eye(), identity, Batch(first_example=0), example)
    assert lit is not None and lit.tolist() == [[0.25, 0, 0], [0, 1, 0]]
