import pytest
import torch

from sae.dictionaries.base import Dictionary
from sae.dictionaries.identity import IdentityConfig
from sae.dictionaries.registry import make_dictionary
from sae.errors import DictionaryError
from sae.features.examples import Chunk, top_examples
from sae.features.show import picture, shaded_tokens

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
    assert text.plain.count("▀") == 12 * 24
    assert all("rgb(255,0,0)" in str(span.style) for span in text.spans if "▀" in text.plain[span.start : span.end])
