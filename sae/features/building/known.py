"""What is known of latents beside where they fire: sections of a card that need labels, the subject or relatives."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sae.activations.store import Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.linear import Directions, Identity, IdentityConfig, Linear
from sae.errors import EvaluationError
from sae.evaluation.controls import random_directions
from sae.evaluation.families import has_facets
from sae.evaluation.gather import stored_for, take_sample
from sae.evaluation.meanings import related_labels
from sae.evaluation.sample import Sample, Units, encoded, halves
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.directions import Direction
from sae.features.cards import rounded
from sae.features.sections.ablation import AblationLosses, TokenLosses
from sae.features.sections.carried import Carried
from sae.features.sections.labelled import FacetResponses, Labelled, best_control_auc
from sae.features.sections.neighbours import NearLatents, Neighbours, Relative
from sae.features.sections.neuron_links import NeuronLinks
from sae.features.sections.neurons import NeuronMixtures
from sae.features.sections.writes import CaptionWrites, LogitWrites
from sae.inputs.base import Inputs
from sae.inputs.base import Labelled as LabelledInputs
from sae.subjects.base import ImageTextSubject, Subject

logger = logging.getLogger(__name__)

CAPTION = "caption"


TOKEN_LOSSES = "token losses"
"""No section of its own: what goes into the strongest examples."""


class Section(Protocol):
    """Makes one section of cards; None for a latent that has none."""

    def of(self, latents: range, /) -> Sequence[Any | None]: ...


@dataclass(frozen=True)
class Known:
    """A dictionary at work on a sample, with exact labels where its inputs have them.

    Attributes:
        dictionary: whose latents.
        subject, inputs, vectors: what they fire on.
        config: how much of everything to use.
    """

    dictionary: Dictionary
    subject: Subject
    inputs: Inputs
    vectors: Vectors
    config: CatalogConfig

    @cached_property
    def sample(self) -> Sample | None:
        """The first rows with their labels; None where there are no labels, or none is frequent enough to score."""
        if not isinstance(self.inputs, LabelledInputs):
            return None
        try:
            sample = take_sample(self.vectors, self.inputs, self.config.labelled_vectors, self.config.seed)
            return sample if sample.table.names else None
        except EvaluationError as cause:
            logger.warning("cards have no labels: %s", cause)
            return None

    @cached_property
    def units(self) -> Units | None:
        return None if self.sample is None else Units("dictionary", self.dictionary, self.sample)

    @cached_property
    def neurons(self) -> Units | None:
        """The raw neurons on the same sample."""
        return None if self.sample is None else Units("neurons", raw_neurons(self.dictionary.d_in), self.sample)

    def latent_sections(
        self, top: Int64[np.ndarray, "d_sae top"], drawn: Int64[np.ndarray, "d_sae n"] | None
    ) -> dict[str, Section]:
        """Return the sections of latents.

        Args:
            top: numbers of each latent's strongest examples, -1 where there are fewer.
            drawn: of examples drawn at random on which it is ablated, or None for no ablation.
        """
        rows = None if self.units is None else self.units.row_responses
        links = NeuronLinks(self.dictionary, rows, None if self.sample is None else self.sample.x)
        neighbours: Any = Neighbours(self.dictionary, rows, top, self._relatives())  # type: ignore[arg-type]
        found: dict[str, Section | None] = {
            "writes": self._logits(self.dictionary, drawn) or self._captions(self.units),
            "neurons": links,
            "neighbours": neighbours,
        }
        subject: Any = self.subject
        if drawn is not None and LogitWrites.has_logits(self.dictionary, subject):
            strongest = top[:, : self.config.ablation_examples]
            found[TOKEN_LOSSES] = TokenLosses(AblationLosses(self.dictionary, subject, self.inputs, strongest))
        if self.units is not None:
            found |= {"labels": Labelled(self.units, self.controls), "facets": self._facets(self.units)}
        return {name: section for name, section in found.items() if section is not None}

    def neuron_sections(self) -> dict[str, Section]:
        """Return the sections of raw neurons: what they answer to, and what takes it apart."""
        if self.units is None or self.neurons is None:
            return {}
        labels: Mapping[str, Section | None] = {
            "labels": Labelled(self.neurons),
            "facets": self._facets(self.neurons),
        }
        mixture: dict[str, Section] = {}
        if not self.dictionary.is_transcoder:
            related = related_labels(self.units.sample.table, self.inputs)
            mixture = {"mixture": NeuronMixtures(self.units, self.neurons, related)}
        return mixture | {name: section for name, section in labels.items() if section is not None}

    def directions(self, found: Sequence[Direction]) -> Directions:
        """Return the units of directions; they answer 0 to the mean of the vectors."""
        units = Directions.of(torch.stack([one.vector for one in found]), self.x.float().mean(0))
        written = ("target_sites", "target_hookpoint")
        units.provenance = {name: value for name, value in self.dictionary.provenance.items() if name not in written}
        return units

    def direction_sections(self, directions: Directions, found: Sequence[Direction]) -> dict[str, Section]:
        """Return the sections of directions: as those of latents, and what the dictionary has of them."""
        sections: dict[str, Section | None] = {"neighbours": NearLatents(directions, self.dictionary)}
        sections["carried"] = self._carried(directions)
        units = None if self.sample is None else Units("directions", directions, self.sample)
        sections["writes"] = self._logits(directions) or self._captions(units)
        if units is not None:
            sections |= {"labels": Labelled(units, self.controls), "facets": self._facets(units)}
            sections["scores"] = OwnLabel(units, [one.label for one in found], self.controls)
        return {name: section for name, section in sections.items() if section is not None}

    @cached_property
    def x(self) -> Shaped[Tensor, "rows d_in"]:
        """The rows of the sample, and the first ones where there is none."""
        if self.sample is not None:
            return self.sample.x
        return self.vectors.read(0, min(self.config.labelled_vectors, len(self.vectors)))

    def _carried(self, directions: Directions) -> Section | None:
        if isinstance(self.dictionary, Linear):
            return None
        if self.units is not None:
            sample = self.units.sample
            codes, match = self.units.codes, sample.match[sample.item]
        else:
            codes = encoded(self.dictionary, self.x)
            match = halves(self.vectors.provenance(0, len(self.x)).example, self.config.seed)
        return Carried(directions.W_dec, self.x, codes, match, self.config.seed)

    def _logits(self, dictionary: Dictionary, drawn: Int64[np.ndarray, "d_sae n"] | None = None) -> Section | None:
        subject: Any = self.subject
        if not LogitWrites.has_logits(dictionary, subject):
            return None
        losses = None if drawn is None else AblationLosses(dictionary, subject, self.inputs, drawn)
        return LogitWrites(dictionary, subject, losses)

    def _captions(self, units: Units | None) -> Section | None:
        embedding, inputs = self._embedding(), self.inputs
        if units is None or embedding is None or not hasattr(inputs, "references"):
            return None
        subject: Any = self.subject
        examples = units.sample.example
        references = inputs.references(int(examples.min()), int(examples.max()) + 1)  # type: ignore[attr-defined]
        captions = [reference[CAPTION] for reference in references if reference.get(CAPTION)]
        classes = inputs.classes  # type: ignore[attr-defined]
        words = [] if classes is None else list(inputs.label_names[classes.family])  # type: ignore[attr-defined]
        if not captions and not words:
            return None
        return CaptionWrites.embedded(units.responses, embedding, subject, captions, words)

    def _embedding(self) -> Float[Tensor, "items d_joint"] | None:
        """Return the sample's images in the joint space, where they were harvested."""
        if self.sample is None or not self.sample.pooled or not isinstance(self.subject, ImageTextSubject):
            return None
        images = stored_for(self.vectors, self.sample, "visual.embedding")
        return None if images is None else F.normalize(images, dim=1)

    @cached_property
    def controls(self) -> dict[str, float]:
        """The best raw neuron's and random direction's area for each label; none without labels."""
        if self.units is None or self.neurons is None or self.sample is None:
            return {}
        responses = self.units.row_responses
        rates = responses.n_fired.double() / responses.n_items
        drawn = random_directions(self.sample.x, rates, self.config.seed)
        return best_control_auc([self.neurons, Units("random_directions", drawn, self.sample)])

    def _facets(self, units: Units) -> Section | None:
        return FacetResponses(units) if has_facets(units.sample) else None

    def _relatives(self) -> list[Relative]:
        """Relate the dictionaries of other sizes: by what fires together where there is a sample."""
        found = []
        for source in self.config.relatives:
            other = load_dictionary(source).to(self.dictionary.W_dec.device).eval()
            name = Path(source).name
            if self.units is None:
                found.append(Relative.by_decoder(name, self.dictionary, other))
            else:
                found.append(Relative.by_activation(name, self.units, Units(name, other, self.units.sample)))
        return found


class OwnLabel:
    """The section "scores" of directions that were made for a label: how well they detect it.

    The area under the ROC curve on the half of the sample to score on, which had no part in making them.

    Args:
        units: the directions, at work on the sample.
        labels: number of the label of each, None for one that was made for none.
        controls: the best control's area for each label, by name.
    """

    def __init__(self, units: Units, labels: Sequence[int | None], controls: Mapping[str, float]) -> None:
        self._units, self._labels, self._controls = units, labels, controls

    def of(self, latents: range) -> list[dict[str, Any] | None]:
        """Return the section of each direction."""
        return [None if (label := self._labels[one]) is None else self._section(one, label) for one in latents]

    def _section(self, one: int, label: int) -> dict[str, Any]:
        name = self._units.sample.table.names[label]
        control = {"control": rounded(self._controls[name]), "against": "best neuron or random direction"}
        return {"label_auc": {"value": rounded(float(self._units.auc[1][one, label]))} | control}


def raw_neurons(d_in: int) -> Identity:
    """Return the dictionary whose latents are the neurons themselves."""
    return Identity(IdentityConfig(d_sae=d_in), d_in)
