"""Score a dictionary and every control on one sample, by every family of metrics."""

import ctypes
import dataclasses
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sae.activations.store import Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.belonging import check_weights
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.controls import DESCRIPTIONS, Control, controls_for
from sae.evaluation.dissection import Masks
from sae.evaluation.families import Ground, details, has_facets, measure, tables
from sae.evaluation.gather import Rebuilt, rebuild_rows, stored_for, take_sample, vectors_of
from sae.evaluation.joint_space import modality_scores
from sae.evaluation.labels import best_labels
from sae.evaluation.meanings import related_labels
from sae.evaluation.metric import Measured, Score
from sae.evaluation.pairs import pair_sample
from sae.evaluation.patterns import Patterns
from sae.evaluation.report import DICTIONARY, Results
from sae.evaluation.resolution import Mixtures
from sae.evaluation.sample import Sample, Units
from sae.evaluation.similarity import Similarity
from sae.inputs.base import Masked
from sae.log import progress
from sae.subjects.base import ImageTextSubject, Subject
from sae.subjects.load import load

logger = logging.getLogger(__name__)

NEURONS = "neurons"
SHUFFLED = "shuffled"
UNTRAINED_SUBJECT = "untrained_subject"


@dataclass(frozen=True)
class Interpretation:
    """Results of the dictionary and of each control, tables, numbers of single latents, and what was scored."""

    results: dict[str, Results]
    details: dict[str, Any]
    numbers: dict[str, Tensor]
    amounts: dict[str, int]


class Interpreter:
    """Scores one dictionary and its controls.

    Args:
        dictionary: to be scored.
        vectors: rows of its hookpoint.
        inputs: what the vectors come from, with exact labels.
        subject: what they come from, where it can be run; paired renders and image embeddings need it.
        config: how much of everything to use.
    """

    def __init__(
        self, dictionary: Dictionary, vectors: Vectors, inputs: Any, subject: Subject | None, config: EvaluateConfig
    ) -> None:
        self.dictionary, self.vectors, self.inputs, self.subject = dictionary, vectors, inputs, subject
        self.config, self.hookpoint = config, vectors.hookpoint.name
        self.sample = take_sample(vectors, inputs, config.n_sample_vectors, config.seed)
        _give_back()

    def run(self, rebuilt: Rebuilt, trained_controls: Mapping[str, str]) -> Interpretation:
        """Score everything.

        Args:
            rebuilt: the pass over all vectors, whose firing rates the controls imitate.
            trained_controls: sources of control dictionaries by name.
        """
        rates, seed = rebuilt.firing.rates, self.config.seed
        controls = controls_for(self.dictionary, self.sample.x, rates, float(rates.sum()), seed)
        controls += [self._trained(name, source) for name, source in trained_controls.items()]
        sizes = [control.dictionary.d_sae for control in controls if control.name != "constant"]
        controls.append(Control(SHUFFLED, DESCRIPTIONS[SHUFFLED], self.dictionary))
        units = Units(DICTIONARY, self.dictionary, self.sample, rebuilt.codes_of(len(self.sample.x)))
        neurons = Units(NEURONS, controls[0].dictionary, self.sample)
        ground = self._ground(neurons, min(self.dictionary.d_sae, *sizes))
        with progress("score", total=len(controls) + 1, unit="sets of units") as bar:
            # What is found out about units is large, and goes as soon as they are scored.
            results = {NEURONS: self._score_control(controls[0], neurons, ground)}
            tables_of_neurons = tables(neurons)
            del neurons
            _give_back()
            bar.advance(1)
            measured = measure(units, ground) + self._modalities(units)
            results[DICTIONARY] = Results(description=repr(self.dictionary), measured=measured)
            shown = details(units, tables_of_neurons, ground, measured)
            numbers = {"best_label": best_labels(units)}
            units = units.anew()
            _give_back()
            bar.advance(1)
            for control in controls[1:]:
                results[control.name] = self._score_control(control, *self._units_and_ground(control, units, ground))
                _give_back()
                bar.advance(1)
        amounts = {
            "vectors": len(self.sample.x),
            "items": self.sample.n_items,
            "explained_latents": self.config.n_explained_latents,
            "pairs": self.config.n_pairs,
        }
        return Interpretation(results, shown, numbers, amounts)

    def _row_scores(self, units: Units) -> list[Score]:
        """Score what a control rebuilds; a transcoder writes something else, to which that is not compared."""
        if self.dictionary.is_transcoder:
            return []
        return rebuild_rows(units, self.config.chunk_vectors, self.config.seed)

    def _score_control(self, control: Control, units: Units, ground: Ground) -> Results:
        row_scores = self._row_scores(units)
        return Results(description=control.description, measured=measure(units, ground), row_scores=row_scores)

    def _units_and_ground(self, control: Control, latents: Units, ground: Ground) -> tuple[Units, Ground]:
        """Return the units of a control that are scored, and the ground they are scored on."""
        if control.name == UNTRAINED_SUBJECT:
            return self._on_untrained(control, ground)
        if control.name == SHUFFLED:
            dealt = None if ground.pairs is None else ground.pairs.shuffled(self.config.seed)
            return latents.shuffled(SHUFFLED, self.config.seed), dataclasses.replace(ground, pairs=dealt)
        return Units(control.name, control.dictionary, self.sample), ground

    def _on_untrained(self, control: Control, ground: Ground) -> tuple[Units, Ground]:
        """Return the units of a dictionary of an untrained subject, and the ground with that subject's neurons."""
        if len(self.vectors.parts) > 1:
            raise EvaluationError(f"control {control.name}: an untrained subject is compared at one hookpoint only.")
        other = load(control.dictionary.provenance["subject"])
        x = vectors_of(other, self.hookpoint, self.inputs, self.sample, self.config.batch_examples)
        sample = self.sample.with_vectors(x)
        neurons = Identity(IdentityConfig(d_sae=control.dictionary.d_in), control.dictionary.d_in)
        mixtures = None
        if ground.mixtures is not None:
            mixtures = Mixtures.of(Units(NEURONS, neurons, sample), ground.mixtures.related)
        pairs = self._pairs(other) if ground.pairs is not None else None
        return Units(control.name, control.dictionary, sample), dataclasses.replace(
            ground, mixtures=mixtures, pairs=pairs
        )

    def _trained(self, name: str, source: str) -> Control:
        """Load a trained control.

        Raises:
            EvaluationError: it is for another hookpoint or width.
        """
        found = load_dictionary(source).to(self.dictionary.W_dec.device).eval()
        check_weights(found, source)
        hookpoint = found.provenance.get("hookpoint")
        if hookpoint != self.hookpoint or found.d_in != self.dictionary.d_in:
            raise EvaluationError(
                f"control {name} ({source}): trained on {hookpoint}, {found.d_in} wide; the dictionary is for "
                f"{self.hookpoint}, {self.dictionary.d_in} wide."
            )
        return Control(name, DESCRIPTIONS.get(name, repr(found)), found)

    def _ground(self, neurons: Units, n_candidates: int) -> Ground:
        sample, inputs = self.sample, self.inputs
        is_text = sample.rows.token is not None and not sample.pooled
        tokenizer, transcodes = getattr(self.subject, "tokenizer", None), self.dictionary.is_transcoder
        return Ground(
            n_candidates=n_candidates,
            n_explained=self.config.n_explained_latents,
            similarity=Similarity.of_factors(sample),
            mixtures=None if transcodes else Mixtures.of(neurons, related_labels(sample.table, inputs)),
            patterns=Patterns(sample) if is_text else None,
            decode=str if tokenizer is None else lambda token: tokenizer.decode([token]),
            masks=self._masks(),
            embeddings=self._embeddings() if has_facets(sample) else None,
            pairs=None if self.subject is None else self._pairs(self.subject),
            seed=self.config.seed,
        )

    def _masks(self) -> Masks | None:
        """Return the masks of the sample's images on the hookpoint's grid of positions, where both are known."""
        patch_grid = getattr(self.subject, "patch_grid", None)
        if patch_grid is None or not isinstance(self.inputs, Masked) or len(self.sample.x) == self.sample.n_items:
            return None
        return Masks.of(self.sample, self.inputs, patch_grid(self.vectors.hookpoint.grid))

    def _pairs(self, subject: Subject) -> Sample | None:
        """Run a subject on paired renders, where the inputs can render them for this hookpoint."""
        world = getattr(self.inputs, "world", None)
        if world is None or not self.hookpoint.startswith("visual.") or len(self.vectors.parts) > 1:
            return None
        return pair_sample(
            subject,
            self.hookpoint,
            world,
            self.config.n_pairs,
            batch_pairs=self.config.batch_examples,
            seed=self.config.seed,
        )

    def _embeddings(self) -> tuple[Tensor, Tensor] | None:
        """Return the embeddings of the sample's images and of the classes' prompts."""
        images = stored_for(self.vectors, self.sample, "visual.embedding")
        if images is None or not isinstance(self.subject, ImageTextSubject) or self.inputs.classes is None:
            return None
        texts = self.subject.zero_shot_classifier(self.inputs.classes.prompts)
        return F.normalize(images, dim=1), texts.float().cpu()

    def _modalities(self, units: Units) -> list[Measured]:
        """Compare images with their captions for a dictionary of the joint space."""
        texts = (
            stored_for(self.vectors, self.sample, "text.embedding") if self.hookpoint == "visual.embedding" else None
        )
        if texts is None:
            return []
        return modality_scores(units, Units("texts", self.dictionary, self.sample.with_vectors(texts)))


def _give_back() -> None:
    """Return freed memory to the system: between tensors that stay, glibc keeps hundreds of megabytes of it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # other C libraries have none
            trim(0)
