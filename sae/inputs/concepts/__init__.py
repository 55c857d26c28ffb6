"""The procedural concept world: pictures with captions and exact labels, for the built-in CLIP subjects."""

from sae.inputs.concepts.sampling import VERSION
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.source import ConceptInputs
from sae.inputs.concepts.vocabulary import FACETS, Concept
from sae.inputs.concepts.world import FACTORS, SPLITS, World

__all__ = ["FACETS", "FACTORS", "SPLITS", "VERSION", "Concept", "ConceptInputs", "Scene", "World"]
