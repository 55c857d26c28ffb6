"""Toys and what metrics say of sets of units on them; `test_ground_truth.py` states what they have to say.

A *view* is one kind of data that metrics look at, made of a toy. It scores five sets of units: the true dictionary
(`perfect`), units that always answer one (`constant`), the true dictionary with its rows dealt out (`shuffled`), random
directions (`random`), and the control that an evaluation would set beside those (`control`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache, cached_property

import torch
from attainable import SPLITTING_BAR
from torch import Tensor

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.threshold import Thresholded
from sae.evaluation.controls import controls_for
from sae.evaluation.detection import Detection
from sae.evaluation.dissection import Masks, dissection_scores
from sae.evaluation.explanations import explanation_scores
from sae.evaluation.facets import Faceted, facet_scores
from sae.evaluation.gather import RECONSTRUCTION_METRICS
from sae.evaluation.joint_space import modality_scores, text_scores
from sae.evaluation.labels import label_scores
from sae.evaluation.meanings import related_labels
from sae.evaluation.metric import Accumulator, Measured
from sae.evaluation.pairs import pair_scores
from sae.evaluation.patterns import MIN_ROWS, Patterns
from sae.evaluation.reconstruction import FiringRates, firing_scores, reconstruction
from sae.evaluation.recovery import Firing, Recovery, recovery_scores
from sae.evaluation.resolution import Mixtures, resolution_scores
from sae.evaluation.sample import Sample, Units
from sae.evaluation.similarity import Similarity, similarity_scores
from sae.evaluation.splicing import CLIP_METRICS, LANGUAGE_METRICS, Splice, next_token_losses, zero_shot_answers
from sae.evaluation.splitting import Step, splitting_scores
from sae.evaluation.stability import match_dictionaries, match_random, stability_scores
from sae.evaluation.toy_inputs import toy_images, toy_pairs, toy_text
from sae.evaluation.toy_subjects import HOOKPOINT, VISUAL_HOOKPOINT, ToyClip, ToyLanguage
from sae.evaluation.toys import (
    Toy,
    correlated,
    hierarchical,
    orthogonal,
    superposition,
    toy_sample,
    true_dictionary,
    two_modality,
)
from sae.evaluation.universality import shuffled_items, universality_scores
from sae.inputs.base import Classes

TOYS: dict[str, Toy] = {
    "superposition": dataclasses.replace(superposition(20, 14, l0=0.8, seed=2), noise=0.0),
    "orthogonal": orthogonal(16, 16, l0=0.8),
    "zipf": orthogonal(12, 12, l0=0.48, exponent=1.0),
    "hierarchical": hierarchical(12, branching=1, depth=1, d_in=26, probability=0.08, share=0.5),
    "correlated": correlated(24, 24, l0=0.96, block=2),
    "two_modality": two_modality(8, 4, 20, probability=0.08, gap=1.0),
}
"""Every ground-truth toy, without noise; features are rare enough to be sparse also in texts and pictures.

The seed of the superposed ones draws directions that are far enough apart to be told apart exactly. Modalities are so
near each other that neurons answer to what is in the rows, not to the modality that comes with some of it.
"""
N_ROWS, N_PASSAGES, N_PICTURES, N_PAIRS = 3000, 3600, 1500, 24
N_DRAWS = 8
"""Random dictionaries drawn where a score is one number per dictionary, so that a standard error can be taken."""

Values = dict[str, Tensor]
"""Per metric, one value per item, or one per random dictionary for scores that are sums over rows."""


def values_of(measured: Sequence[Measured]) -> Values:
    return {one.definition.name: one.values for one in measured}


def dictionaries(kind: str, true: Dictionary, x: Tensor, n_draws: int = 1) -> Iterator[Dictionary]:
    """Yield the dictionary of a set of units, or several draws of it."""
    codes = true.encode(x)
    rates, l0 = codes.n_fired() / len(x), float(codes.l0().double().mean())
    if kind in ("perfect", "shuffled"):
        yield true
    elif kind == "constant":
        yield {control.name: control for control in controls_for(true, x, rates, l0)}["constant"].dictionary
    else:
        # Four times as many as latents, for smaller standard errors.
        rates = rates.repeat(4)
        for draw in range(n_draws):
            random = Thresholded.random_directions(x, rates, torch.Generator().manual_seed(1000 + draw))
            if kind == "random":
                yield random
            else:
                found = controls_for(random, x, rates, 4 * l0, seed=draw)
                yield {control.name: control for control in found}["random_directions"].dictionary


class View:
    """One toy as some metrics see it."""

    def __init__(self, toy: Toy) -> None:
        self.toy, self.true = toy, true_dictionary(toy)

    def measure(self, kind: str) -> Values:
        raise NotImplementedError


class OfSample(View):
    """Views whose data is a sample."""

    sample: Sample

    def units(self, kind: str) -> Units:
        sample = self.sample.shuffled(0) if kind == "shuffled" else self.sample
        return Units(kind, next(dictionaries(kind, self.true, self.sample.x)), sample)


class Vectors(View):
    """Rows alone: reconstruction and firing, one number per dictionary."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.drawn = toy.draw(N_ROWS, torch.Generator().manual_seed(0))
        self.x = self.drawn.x

    def measure(self, kind: str) -> Values:
        x = self.x[torch.randperm(N_ROWS, generator=torch.Generator().manual_seed(0))] if kind == "shuffled" else self.x
        found: list[dict[str, float]] = []
        for dictionary in dictionaries(kind, self.true, x, N_DRAWS):
            accumulator, firing = Accumulator(RECONSTRUCTION_METRICS), FiringRates(dictionary.d_sae)
            for rows in x.split(500):
                chunk = reconstruction(dictionary, rows)
                accumulator.update(chunk)
                firing.update(chunk.codes)
            scores = [*accumulator.scores(), *(measured.score() for measured in firing_scores(firing))]
            found.append({score.name: score.value for score in scores})
        return {name: torch.tensor([one[name] for one in found], dtype=torch.float64) for name in found[0]}


class Rows(OfSample):
    """Rows with the true features as labels."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.sample = toy_sample(toy, N_ROWS)
        self.drawn = toy.draw(N_ROWS, torch.Generator().manual_seed(0))
        assert torch.equal(self.drawn.x, self.sample.x)

    @cached_property
    def mixtures(self) -> Mixtures:
        width = self.sample.x.shape[1]
        neurons = Units("neurons", Identity(IdentityConfig(d_sae=width), width), self.sample)
        return Mixtures.of(neurons, related_labels(self.sample.table))

    @cache  # noqa: B019
    def detection(self, kind: str) -> Detection:
        return Detection(self.units(kind))

    def measure(self, kind: str) -> Values:
        units = self.units(kind)
        recovery = Recovery.of(units.dictionary.W_dec.detach(), self.toy.directions)
        return values_of(
            label_scores(units, units.n_units)
            + resolution_scores(units, self.mixtures)
            + recovery_scores(recovery, Firing.of(units.responses, self.drawn.fired))
        )


class Text(OfSample):
    """Tokens whose contexts drive the features, all equally strong."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(dataclasses.replace(toy, spread=0.0))
        self.sample, self.drawn = toy_text(self.toy, N_PASSAGES)
        self.patterns = Patterns(self.sample)
        # Fewer rows and a pattern cannot be found, or not be seen to hold.
        words = self.sample.rows.token[self.sample.match].bincount()
        assert int(words[words > 0].min()) >= MIN_ROWS

    def measure(self, kind: str) -> Values:
        patterns = self.patterns.shuffled(0) if kind == "shuffled" else self.patterns
        units = self.units("perfect" if kind == "shuffled" else kind)
        return values_of(explanation_scores(units, patterns, n_units=32))


class Images(OfSample):
    """Concepts in facets, all equally strong, in one cell of a grid and in the class token."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(dataclasses.replace(toy, spread=0.0))
        self.images = toy_images(self.toy, N_PICTURES)
        self.sample, self.drawn = self.images.sample, self.images.drawn
        self.masks = Masks.of(self.sample, self.images, self.images.grid)
        self.similarity = Similarity.of_factors(self.sample, ["concept"])
        assert len(Faceted.of(self.units("perfect")).scored) == len(self.images.concepts), "some concept is too rare"

    def measure(self, kind: str) -> Values:
        units = self.units(kind)
        return values_of(
            facet_scores(units, units.n_units)
            + text_scores(units, *self.images.joint(self.toy))
            + dissection_scores(units, self.masks, units.n_units)
            + similarity_scores(units, self.similarity, "concept")
        )


class Pairs(OfSample):
    """Rows that differ in one feature alone."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.sample = toy_pairs(toy, N_PAIRS)

    def measure(self, kind: str) -> Values:
        return values_of(pair_scores(self.units(kind)))


class Towers(View):
    """Rows of one modality beside rows of the other; two draws alike where a toy has no modalities."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.whole, self.drawn = toy_sample(toy, N_ROWS), toy.draw(N_ROWS, torch.Generator().manual_seed(0))
        modality = torch.from_numpy(self.drawn.factors["modality"]) if self.drawn.factors else torch.arange(N_ROWS) % 2
        self.is_text = modality == 1

    def measure(self, kind: str) -> Values:
        dealt = self.is_text[torch.randperm(N_ROWS, generator=torch.Generator().manual_seed(0))]
        is_text = dealt if kind == "shuffled" else self.is_text
        dictionary = next(dictionaries(kind, self.true, self.whole.x))
        images, texts = (Units(kind, dictionary, self._part(keep)) for keep in (~is_text, is_text))
        return values_of(modality_scores(images, texts))

    def _part(self, keep: Tensor) -> Sample:
        rows = Provenance(
            *(part[keep] for part in (self.whole.rows.example, self.whole.rows.position, self.whole.rows.kind))
        )
        return dataclasses.replace(self.whole, x=self.whole.x[keep], rows=rows, match=self.whole.match[keep])


class Twins(OfSample):
    """Two dictionaries on the same rows: the true one and itself in another order, or two random ones."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.sample = toy_sample(toy, N_ROWS)
        self.drawn = toy.draw(N_ROWS, torch.Generator().manual_seed(0))
        self.order = torch.randperm(len(toy.directions), generator=torch.Generator().manual_seed(1))

    def measure(self, kind: str) -> Values:
        one, two = self._both(kind)
        match, alive = self.sample.match, (one.alive, two.alive)
        partners = two.responses
        if kind == "shuffled":
            partners = shuffled_items(partners, match, 0)
        if kind == "control":
            matching = match_random(one.dictionary, alive[0], seed=9)
        else:
            matching = match_dictionaries(one.dictionary, two.dictionary, alive)
        found = stability_scores(matching) + universality_scores(one.responses, partners, match)
        if kind != "constant":  # whose activations are dense
            found += splitting_scores(Step.between(one.responses, partners, bar=SPLITTING_BAR))
        return values_of(found)

    def _both(self, kind: str) -> tuple[Units, Units]:
        again = true_dictionary(dataclasses.replace(self.toy, directions=self.toy.directions[self.order]))
        if kind in ("random", "control"):
            first, second = dictionaries(kind, self.true, self.sample.x, 2)
        else:
            (first,), second = dictionaries(kind, self.true, self.sample.x), again
        return Units("one", first, self.sample), Units("two", second, self.sample)


class Pictures:
    """Numbers of rows as pictures; the class of a picture is the one feature that is active in it."""

    def __init__(self, concept: Tensor, n_classes: int) -> None:
        self.concept, self.bookkeeping = concept, ()
        self.label_names = {"concept": tuple(map(str, range(n_classes)))}
        self.classes = Classes("concept", [[str(number)] for number in range(n_classes)])

    def labels(self, start: int, stop: int) -> dict:
        return {"concept": self.concept[start:stop].numpy()}


class Subjects(View):
    """Subjects whose activations are rows of the toy, with reconstructions spliced in."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.drawn = toy.draw(300, torch.Generator().manual_seed(0))
        self.language = ToyLanguage(self.drawn.x)
        self.texts = self.language.texts(64, 16)
        # Of text, the rows whose activation is replaced: all but the first token's.
        self.rows_of_text = self.drawn.x[self.texts.tokens[:, 1:].flatten()]
        alone = self.drawn.where(self.drawn.fired.sum(1) == 1)
        self.shown, self.concept = alone, alone.fired.long().argmax(1)
        self.clip = ToyClip(toy, alone.x)
        self.pictures = ToyClip.pictures(torch.arange(len(alone.x)), captions=self.concept)

    def measure(self, kind: str) -> Values:
        found: list[dict[str, float]] = []
        pairs = zip(
            dictionaries(kind, self.true, self.rows_of_text, N_DRAWS),
            dictionaries(kind, self.true, self.shown.x, N_DRAWS),
            strict=True,
        )
        for of_text, of_pictures in pairs:
            language, clip = Accumulator(LANGUAGE_METRICS), Accumulator(CLIP_METRICS)
            mean = self.rows_of_text.mean(0)
            for losses in next_token_losses(
                Splice(of_text, (HOOKPOINT,), {HOOKPOINT: mean}), self.language, [self.texts]
            ):
                language.update(losses)
            inputs, mean = Pictures(self.concept, len(self.toy.directions)), self.shown.x.mean(0)
            splice = Splice(of_pictures, (VISUAL_HOOKPOINT,), {VISUAL_HOOKPOINT: mean})
            for answers in zero_shot_answers(splice, self.clip, [self.pictures], inputs):
                clip.update(answers)
            found.append({score.name: score.value for score in (*language.scores(), *clip.scores())})
        return {name: torch.tensor([one[name] for one in found], dtype=torch.float64) for name in found[0]}


VIEWS: dict[str, type[View]] = {
    "vectors": Vectors,
    "rows": Rows,
    "text": Text,
    "images": Images,
    "pairs": Pairs,
    "towers": Towers,
    "twins": Twins,
    "subjects": Subjects,
}


@cache
def view(toy: str, name: str) -> View:
    return VIEWS[name](TOYS[toy])


@cache
def values(toy: str, name: str, kind: str) -> Values:
    """Return what the metrics of a view say of a set of units on a toy."""
    return view(toy, name).measure(kind)
