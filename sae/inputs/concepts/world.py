"""The concept world: scenes, their pictures, captions and labels."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace

import numpy as np
from jaxtyping import Float

import sae.inputs.concepts.captions as captions
from sae.errors import InputsError, nearest
from sae.inputs.concepts.labels import label_names, labels
from sae.inputs.concepts.paint import Painter, Render
from sae.inputs.concepts.sampling import Sampler, held_out, key
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.vocabulary import FACETS, Concept, build_concepts

SPLITS = ("subject", "dictionary", "score")
TOGETHER = {
    "concept": ("concept", "colour", "hue", "saturation", "value", "skin", "hair", "hair_colour"),
    "colour": ("colour", "hue", "saturation", "value"),
    "position": ("x", "y"),
}
"""Factors that stand for several fields of a scene."""
FACTORS = (
    *("concept", "facet", "colour", "ground", "background", "font", "size", "rotation", "position", "light"),
    *("text", "companion", "badge", "skin", "hair", "hair_colour", "glasses"),
)
"""What the two pictures of a pair can differ in.

For a curve over a continuous factor, replace the field of a scene: `dataclasses.replace(scene, hue=0.3)`. The words
`colour` and `ground` then keep their old values.
"""
_EXTRAS = {"text": "", "companion": "", "badge": False, "alias": "", "mentions": ()}
"""What a pair leaves out unless it is the factor."""


class World:
    """Scenes, pictures and captions of the built-in CLIP subjects; the same on every machine.

    Args:
        seed: permutes the frequencies and the order; the planted correlations exist for seed 0 only.
        size: side of the pictures in pixels.
    """

    def __init__(self, seed: int = 0, size: int = 64):
        self.seed = seed
        self.size = size
        self.concepts: tuple[Concept, ...] = build_concepts()
        self.named: Mapping[str, Concept] = {concept.name: concept for concept in self.concepts}
        self.label_names = label_names(self.concepts)
        self._sampler = Sampler(self.concepts, seed)
        self._painter = Painter(self.concepts, size)

    @property
    def frequencies(self) -> Float[np.ndarray, " concepts"]:
        """Each concept's chance in natural sampling; the most frequent is 1,000 times the rarest."""
        return self._sampler.frequencies

    @property
    def planted(self) -> Mapping[str, tuple[str, object, float]]:
        """Spurious correlations: role -> (factor, value, rate); they hold in the subject and dictionary splits."""
        return self._sampler.planted

    def concept(self, name: str) -> Concept:
        """Return a concept by its name."""
        if name not in self.named:
            raise InputsError(f"Concept world: no concept {name!r}.{nearest(name, self.named)}")
        return self.named[name]

    def held_out_combination(self, concept: str, ground: str) -> bool:
        """Whether the subject split never shows this concept on this background colour (one pair in five)."""
        return held_out(concept, ground)

    def association(self, concept: str, other: str) -> str:
        """Return how strongly a concept brings another along: "strong", "weak" or "never"."""
        return dict(self.concept(concept).associates).get(self.concept(other).name, "never")

    def related(self, concept: str, other: str) -> bool:
        """Whether two concepts are the same, of one family, or associated in either direction."""
        families = {self.concept(concept).family, self.concept(other).family}
        associated = {self.association(concept, other), self.association(other, concept)} != {"never"}
        return len(families) == 1 or associated

    def scene(
        self, split: str, index: int, *, concept: str | None = None, facet: str | None = None, uniform: bool = False
    ) -> Scene:
        """Return scene `index` of a split: the same for the same (seed, split, index) everywhere.

        Args:
            split: "subject", "dictionary" or "score".
            index: any non-negative number.
            concept: show this one; None draws one by Zipf frequency.
            facet: show this one; None draws one.
            uniform: draw concepts with equal chances instead.

        Raises:
            InputsError: an unknown name, or a facet that the subject split holds out.
        """
        if split not in SPLITS:
            raise InputsError(f"Concept world: no split {split!r}.{nearest(split, SPLITS)}")
        if facet is not None and facet not in FACETS:
            raise InputsError(f"Concept world: no facet {facet!r}.{nearest(facet, FACETS)}")
        wanted = None if concept is None else self.concept(concept)
        if split == "subject" and wanted is not None and facet in wanted.held_out_facets:
            raise InputsError(f"Concept world: facet {facet!r} of {wanted.name!r} is held out of the subject split.")
        return self._sampler.scene(split, index, wanted, facet, uniform)

    def pair(self, split: str, index: int, factor: str) -> tuple[Scene, Scene]:
        """Return two scenes that differ in one visible factor alone; neither has text, companion or badge besides.

        The pictures differ where the factor shows; noise, clutter and every other factor are the same.

        Raises:
            InputsError: a factor that is not in `FACTORS`.
        """
        if factor not in FACTORS:
            raise InputsError(f"Concept world: no factor {factor!r}.{nearest(factor, FACTORS, limit=20)}")
        rng = np.random.Generator(np.random.PCG64(key("pair", self.seed, split, index, factor)))
        changed = TOGETHER.get(factor, (factor,))
        for _ in range(10_000):
            first = self.scene(split, int(rng.integers(2**40)), uniform=True)
            second = self._other(first, factor, int(rng.integers(2**40)))
            values = {name: getattr(second, name) for name in changed}
            bare = {name: empty for name, empty in _EXTRAS.items() if name != factor}
            one, two = replace(first, **bare), replace(first, **bare | values)
            if self._differ(one, two, changed[-1] if factor == "position" else factor):
                return one, two
        raise InputsError(f"Concept world: no pair that differs in {factor!r} was found in split {split!r}.")

    def _other(self, scene: Scene, factor: str, index: int) -> Scene:
        """Return the scene that lends its value of a factor; a concept comes from the same family and facet."""
        if factor == "facet":
            return self.scene(scene.split, index, concept=scene.concept)
        if factor != "concept":
            return self.scene(scene.split, index, concept=scene.concept, facet=scene.facet)
        family = self.named[scene.concept].family
        relatives = [concept.name for concept in self.concepts if concept.family == family]
        allowed = [name for name in relatives if scene.facet not in self.named[name].held_out_facets]
        chosen = allowed[index % len(allowed)]
        return self.scene(scene.split, scene.index, concept=chosen, facet=scene.facet)

    def _differ(self, one: Scene, two: Scene, factor: str) -> bool:
        """Whether two scenes differ visibly in a factor, and the second is allowed in its split."""
        before, after = self.labels(one), self.labels(two)
        if before[factor] == after[factor] or two.colour == two.ground:
            return False
        if factor not in ("text", "companion") and ("" in (before[factor], after[factor])):
            return False
        if any(isinstance(value, float) and np.isnan(value) for value in (before[factor], after[factor])):
            return False
        held = "yes" in (after["held_out_facet"], after["held_out_combination"])
        return not (two.split == "subject" and held)

    def render(self, scene: Scene) -> Render:
        """Return the picture of a scene and its masks."""
        return self._painter.render(scene)

    def caption(self, scene: Scene) -> str:
        """Return the scene's caption, by a template of its split."""
        return captions.caption(scene, self.named)

    def labels(self, scene: Scene) -> dict[str, str | float]:
        """Return the exact factors of a scene (see `labels.labels`)."""
        return labels(scene, self.named)

    def prompts(self, concept: str | Concept, facet: str | None = None) -> list[str]:
        """Return zero-shot prompts for a concept by the score split's templates, of one facet or of all four."""
        chosen = self.concept(concept) if isinstance(concept, str) else concept
        noun = captions.noun(chosen.name, chosen.family)
        wanted = FACETS if facet is None else (facet,)
        return [text.format(x=noun, w=chosen.name) for name in wanted for text in captions.templates("score", name)]

    def vocabulary(self) -> list[str]:
        """Return every word that a caption can hold, sorted."""
        return captions.vocabulary(self.named)

    def table(self) -> list[dict]:
        """Return every concept as plain JSON, with its frequency in this world: what ships as `concepts.json`."""
        kept = [field.name for field in fields(Concept) if field.name != "drawing"]
        rows = ((asdict(concept), float(share)) for concept, share in zip(self.concepts, self.frequencies, strict=True))
        return [{name: row[name] for name in kept} | {"frequency": share} for row, share in rows]
