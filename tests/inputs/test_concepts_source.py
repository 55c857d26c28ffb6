import json

import numpy as np
import pytest
import torch

from sae.errors import InputsError
from sae.inputs.concepts import ConceptInputs, World
from sae.inputs.concepts.labels import NUMBERS
from sae.tensors import Kind


def tokenize(texts: list[str]) -> torch.Tensor:
    """Start (1), a number per word (its length + 2), end (99), padding."""
    tokens = torch.zeros(len(texts), 24, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        numbers = [1, *(len(word) + 2 for word in text.split()), 99]
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens


@pytest.fixture(scope="module")
def inputs() -> ConceptInputs:
    return ConceptInputs(World(0), "score", 50, tokenize)


def test_batches_are_the_same_however_they_are_cut(inputs: ConceptInputs) -> None:
    whole, parts = inputs.batch(0, 9), [inputs.batch(0, 4), inputs.batch(4, 9)]
    assert whole.images is not None and whole.images.shape == (9, 3, 64, 64) and whole.images.dtype == torch.uint8
    for name in ("images", "tokens", "attended", "kind"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    assert parts[1].first_example == 4 and len(inputs) == 50


def test_tokens_are_the_captions_with_their_kinds(inputs: ConceptInputs) -> None:
    batch = inputs.batch(3, 5)
    caption = inputs.references(3, 4)[0]["caption"]
    assert batch.tokens is not None and batch.attended is not None and batch.kind is not None
    length = len(caption.split()) + 2
    assert batch.attended[0].tolist() == [True] * length + [False] * (24 - length)
    assert batch.kind[0, 0] == Kind.BOS and batch.kind[0, length - 1] == Kind.EOT
    assert (batch.kind[0, 1 : length - 1] == Kind.TOKEN).all() and (batch.kind[0, length:] == Kind.SPECIAL).all()


def test_labels_number_what_the_scenes_show(inputs: ConceptInputs) -> None:
    labels = inputs.labels(0, 50)
    assert set(labels) == set(inputs.label_names) | set(NUMBERS)
    for index in range(50):
        shown = inputs.world.labels(inputs.scene(index))
        for family, names in inputs.label_names.items():
            number = labels[family][index]
            assert shown[family] == ("" if number < 0 else names[number])
        np.testing.assert_equal(labels["hue"][index], shown["hue"])
    assert inputs.classes is not None and len(inputs.classes.prompts) == len(inputs.label_names["concept"])


def test_fingerprint_follows_what_decides_the_examples(inputs: ConceptInputs) -> None:
    world = World(0)
    others = [
        ConceptInputs(World(1), "score", 50),
        ConceptInputs(World(0, size=48), "score", 50),
        ConceptInputs(world, "dictionary", 50),
        ConceptInputs(world, "score", 51),
        ConceptInputs(world, "score", 50, uniform=True),
        ConceptInputs(world, "score", 50, facet="word"),
        ConceptInputs(world, "score", 50),  # without captions
    ]
    assert len({inputs.fingerprint, *(other.fingerprint for other in others)}) == 8
    assert ConceptInputs(world, "score", 50, inputs.tokenize).fingerprint == inputs.fingerprint
    assert others[1].batch(0, 1).images.shape[-1] == 48
    json.dumps([inputs.describe(), *inputs.references(0, 1)])


def test_bad_requests_are_refused(inputs: ConceptInputs) -> None:
    with pytest.raises(InputsError, match="no example 50"):
        inputs.batch(49, 51)
    with pytest.raises(InputsError, match="n_examples"):
        ConceptInputs(World(0), "score", 0)
    with pytest.raises(InputsError, match="facet"):
        ConceptInputs(World(0), "score", 5, facet="pictures")
