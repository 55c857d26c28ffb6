"""What a raw neuron mixes, and the latents that carry each part: the neuron before, and taken apart."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from sae.evaluation.resolution import Carriers, Mixtures, carriers_of, concept_variance_explained
from sae.evaluation.sample import Units
from sae.features.cards import rounded


class NeuronMixtures:
    """The section "mixture" of neurons that answer to two unrelated labels or more (see `evaluation.resolution`).

    Each part is a concept that the neuron mixes, with the AUC by which it detects it. `latents` are those that stand
    for the concept and carry most of the neuron's answer to it, as `[latent, AUC, share]`, after the one that resolves
    it if any does; where none stands for it, the one that comes nearest. `variance_explained` is what all that stand
    for it explain together, and `resolved` whether a single latent carries it. `unresolved` is what is left on average:
    1 less the mean of `variance_explained`. Everything is measured on the half to score on. Neurons whose own card
    needs labels and facets get them from `labelled`, which takes their units as it takes a dictionary's.

    Args:
        units: a dictionary's latents, at work on a sample with labels.
        neurons: the raw neurons on the same sample.
        related: which labels are (see `meanings.related_labels`).
    """

    def __init__(self, units: Units, neurons: Units, related: Bool[Tensor, "labels labels"]) -> None:
        self.mixtures = Mixtures.of(neurons, related)
        self.n_neurons, self._names = neurons.n_units, units.sample.table.names
        self._parts: Mapping[int, list[dict[str, Any]]] = self._found(units) if len(self.mixtures.neuron) else {}

    def of(self, neurons: range) -> list[dict[str, Any] | None]:
        """Return the section of each neuron; None for those that are not polysemantic."""
        return [self._section(self._parts[neuron]) if neuron in self._parts else None for neuron in neurons]

    @staticmethod
    def _section(parts: list[dict[str, Any]]) -> dict[str, Any]:
        explained = sum(part["variance_explained"] for part in parts) / len(parts)
        return {"parts": parts, "unresolved": rounded(1 - explained)}

    def _found(self, units: Units) -> dict[int, list[dict[str, Any]]]:
        mixtures, carriers = self.mixtures, Carriers.of(units, self.mixtures)
        explained = concept_variance_explained(carriers).values.tolist()
        standing, resolved = carriers_of(units, mixtures), carriers.resolved.tolist()
        found: dict[int, list[dict[str, Any]]] = {}
        for pair, neuron in enumerate(mixtures.neuron.tolist()):
            nearest = (int(carriers.unit[pair]), float(carriers.auc[pair]), float(carriers.share[pair]))
            # The one that resolves a pair may stand for its concept on the half to score on alone.
            named = {nearest[0]: nearest} if resolved[pair] or not standing[pair] else {}
            named |= {latent[0]: latent for latent in standing[pair]}
            found.setdefault(neuron, []).append(
                {
                    "label": self._names[int(mixtures.label[pair])],
                    "auc": rounded(float(mixtures.auc[pair])),
                    "latents": [[unit, rounded(auc), rounded(share)] for unit, auc, share in named.values()],
                    "variance_explained": rounded(explained[pair]),
                    "resolved": resolved[pair],
                }
            )
        return {neuron: sorted(parts, key=lambda part: -part["auc"]) for neuron, parts in found.items()}
