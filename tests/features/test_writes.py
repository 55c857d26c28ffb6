import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import CatalogError
from sae.evaluation.sample import Units
from sae.evaluation.toy_inputs import toy_images
from sae.evaluation.toy_subjects import HOOKPOINT, ToyLanguage
from sae.evaluation.toys import orthogonal, true_dictionary
from sae.features.sections.ablation import AblationLosses
from sae.features.sections.writes import CaptionWrites, LogitWrites, histograms
from sae.tensors import Batch

TOY = orthogonal(6, 8, 1.5, seed=2)
N_VOCAB, N_TEXTS, LENGTH = 40, 24, 12


@pytest.fixture(scope="module")
def subject() -> ToyLanguage:
    return ToyLanguage(TOY.sample(N_VOCAB, torch.Generator().manual_seed(0))[0])


@pytest.fixture(scope="module")
def dictionary():
    found = true_dictionary(TOY)
    found.provenance = {"hookpoint": HOOKPOINT}
    return found


class Texts:
    """Texts of the toy as inputs."""

    fingerprint = "toy"

    def __init__(self, batch: Batch) -> None:
        self.whole = batch

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, start: int, stop: int) -> Batch:
        one = self.whole
        return Batch(
            first_example=start,
            tokens=one.tokens[start:stop],
            attended=one.attended[start:stop],
            kind=one.kind[start:stop],
        )


def test_logits_are_those_of_the_direction(subject: ToyLanguage, dictionary) -> None:
    writes = LogitWrites(dictionary, subject, n_tokens=3, n_bins=5, decode=lambda token: f"t{token}")
    sections = writes.of(range(2, 5))
    assert len(sections) == 3
    for latent, section in zip(range(2, 5), sections, strict=True):
        logits = (dictionary.W_dec[latent] @ subject.unembed).detach().double()
        logits -= logits.mean()
        order = logits.argsort(descending=True).tolist()
        assert [name for name, _ in section["up"]] == [f"t{i}" for i in order[:3]]
        assert [name for name, _ in section["down"]] == [f"t{i}" for i in order[::-1][:3]]
        assert section["up"][0][1] == pytest.approx(float(logits.max()), rel=1e-3)
        counts, edges = np.histogram(logits.float().numpy(), bins=5)
        assert section["histogram"]["counts"] == counts.tolist()
        assert section["histogram"]["edges"] == pytest.approx(edges.tolist(), rel=1e-3)


def test_a_latent_that_writes_nothing_has_no_section(subject: ToyLanguage, dictionary) -> None:
    silent = TopK(TopKConfig(d_sae=2, k=1), 8).requires_grad_(False)
    silent.provenance = {"hookpoint": HOOKPOINT}
    silent.W_dec[1] = 1.0
    assert [section is None for section in LogitWrites(silent, subject, decode=str).of(range(2))] == [True, False]


def test_where_no_path_is_linear_there_are_no_logits(subject: ToyLanguage, dictionary) -> None:
    other = true_dictionary(TOY)
    other.provenance = {"hookpoint": "blocks.0.mlp.hook_pre"}
    assert LogitWrites.has_logits(dictionary, subject)
    assert not LogitWrites.has_logits(other, subject)
    with pytest.raises(CatalogError, match="linear path"):
        LogitWrites(other, subject)


def test_histograms_of_rows_without_spread() -> None:
    (shape,) = histograms(torch.full((1, 7), 2.0), 4)
    assert shape["counts"] == [7, 0, 0, 0]
    assert shape["edges"][0] == 2.0


def test_ablation_is_the_loss_without_the_latent(subject: ToyLanguage, dictionary) -> None:
    texts = subject.texts(N_TEXTS, LENGTH, seed=3)
    generator = np.random.default_rng(0)
    examples = np.stack([generator.permutation(N_TEXTS)[:7] for _ in range(6)])
    examples[4, 2:], examples[5] = -1, -1
    ablation = AblationLosses(dictionary, subject, Texts(texts), examples, batch_examples=5)
    found, by_token = ablation.of(range(1, 6)), ablation.by_token(range(1, 6))
    codes = dictionary.encode(subject.table).dense()
    for latent, answer in zip(range(1, 6), found, strict=True):
        changes, told = [], by_token[latent - 1] or {}
        for example in examples[latent]:
            tokens = texts.tokens[example]
            for place in range(1, LENGTH - 1):
                strength = codes[tokens[place], latent]
                if example >= 0 and strength > 0:
                    x = subject.table[tokens[place]]
                    both = torch.stack([x, x - strength * dictionary.W_dec[latent]]) @ subject.unembed
                    losses = F.cross_entropy(both, tokens[place + 1].expand(2), reduction="none")
                    changes.append(float(losses[1] - losses[0]))
                    assert told[example][place] == pytest.approx(changes[-1], rel=2e-3, abs=1e-5)
        assert sum(map(len, told.values())) == len(changes)
        assert (answer is None) == (not changes)
        if changes:
            assert answer["n"] == len(changes)
            assert answer["ablation"] == pytest.approx(np.mean(changes), rel=2e-3, abs=1e-5)
    assert found[4] is None
    assert sum(answer is not None for answer in found) >= 3
    n_pairs, n_examples = (examples[1:] >= 0).sum(), len(np.unique(examples[1:][examples[1:] >= 0]))
    assert ablation.cost.n_examples >= n_pairs + n_examples
    assert ablation.cost.seconds > 0


def test_a_useful_latent_costs_something(subject: ToyLanguage, dictionary) -> None:
    """Texts follow the subject's own predictions, so on average every change makes them less likely."""
    texts = subject.texts(200, LENGTH, seed=4)
    examples = np.tile(np.arange(200), (6, 1))
    losses = AblationLosses(dictionary, subject, Texts(texts), examples, batch_examples=64)
    both = LogitWrites(dictionary, subject, losses, decode=str).of(range(6))
    assert all(section["loss"]["ablation"] > 0 for section in both if section["loss"]["n"] > 300)
    assert sum(section["loss"]["n"] > 300 for section in both) >= 2


def test_texts_of_several_lengths_go_through_together(subject: ToyLanguage, dictionary) -> None:
    texts = subject.texts(6, LENGTH, seed=5)

    class Ragged(Texts):
        def batch(self, start: int, stop: int) -> Batch:
            one, length = super().batch(start, stop), 6 + start
            return Batch(
                first_example=start,
                tokens=one.tokens[:, :length],
                attended=one.attended[:, :length],
                kind=one.kind[:, :length],
            )

    examples = np.tile(np.arange(6), (6, 1))
    together = AblationLosses(dictionary, subject, Ragged(texts), examples, batch_examples=32).of(range(6))
    apart = AblationLosses(dictionary, subject, Ragged(texts), examples, batch_examples=1).of(range(6))
    for one, other in zip(together, apart, strict=True):
        assert (one is None) == (other is None)
        if one:
            assert one["n"] == other["n"]
            assert one["ablation"] == pytest.approx(other["ablation"], rel=1e-2, abs=1e-5)


def test_captions_nearest_to_a_latent_are_those_of_its_feature() -> None:
    toy = orthogonal(10, 16, 2.0, seed=0)
    images = toy_images(toy, 1200)
    units = Units("true", true_dictionary(toy), images.sample)
    embedding, concepts = images.joint(toy)
    words = [f"word {int(concept)}" for concept in images.concepts]
    captions = [f"a picture of {word}" for word in words]
    writes = CaptionWrites(units.responses, embedding, (captions, concepts), (words, concepts), n=3)
    for concept in images.concepts.tolist():
        (section,) = writes.of(range(concept, concept + 1))
        assert section["words"][0][0] == f"word {concept}"
        assert section["captions"][0][0] == f"a picture of word {concept}"
        assert len(section["words"]) == 3
        # Naive: the covariance of the activation with the embeddings, beside centred texts.
        activation = units.responses.columns(torch.tensor([concept]))[:, 0].double()
        place = ((activation - activation.mean())[:, None] * embedding.double()).sum(0)
        texts = concepts.double() - concepts.double().mean(0)
        cosine = F.cosine_similarity(place[None], texts, dim=1)
        assert section["alignment"] == pytest.approx(float(cosine.max()), rel=1e-3)


def test_captions_are_embedded_once_each_and_silent_latents_have_none() -> None:
    toy = orthogonal(10, 16, 2.0, seed=0)
    images = toy_images(toy, 400)
    dictionary = true_dictionary(toy)
    dictionary.b_enc.data[3] = -100.0
    units = Units("true", dictionary, images.sample)

    class Tower:
        asked: list[str] = []  # noqa: RUF012

        def zero_shot_classifier(self, prompts):
            self.asked += [text for (text,) in prompts]
            return F.normalize(torch.eye(16)[: len(prompts)] + 0.1)

    tower = Tower()
    writes = CaptionWrites.embedded(units.responses, images.joint(toy)[0], tower, ["a", "b", "a"], [])
    assert tower.asked == ["a", "b"]
    sections = writes.of(range(2, 4))
    assert sections[1] is None
    assert set(sections[0]) == {"captions", "alignment"}
    assert sections[0]["alignment"] == sections[0]["captions"][0][1]
