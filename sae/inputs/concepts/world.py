"""The concept world: which scenes there are, how often, and what is kept from whom."""

import hashlib
from dataclasses import replace
from functools import lru_cache

import numpy as np

from sae.errors import InputsError, nearest
from sae.inputs.concepts import captions
from sae.inputs.concepts.lettering import SPLIT_FONTS
from sae.inputs.concepts.outlines import HAIR
from sae.inputs.concepts.paint import Painter, Render
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.textures import SPLIT_BACKGROUNDS
from sae.inputs.concepts.vocabulary import (
    ALIAS_RATE,
    BADGE_RATE,
    COLOURS,
    COMPANION_RATES,
    FACETS,
    HAIR_COLOURS,
    Concept,
    build_concepts,
)

VERSION = "1"
SPLITS = ("subject", "dictionary", "score")
FACET_RATES = (0.34, 0.20, 0.30, 0.16)
ZIPF_DECADES = 3.0
TEXT_RATE = 0.10
"""Chance of incidental text in a photo."""
PLANTED = {"pilot": ("glasses", True, 0.9), "judge": ("hair_colour", "gray", 0.9)}
"""Spurious correlations of seed 0: role, appearance, value, and how often it holds (by chance 0.25 and 0.125)."""
GLASSES_RATE = 0.25
HAIR_STYLES = tuple(HAIR)
FACE_COLOURS = ("yellow", "orange", "pink", "cyan", "green", "gray")


class World:
    """Scenes, pictures and captions of the built-in CLIP subjects.

    Args:
        seed: permutes the frequencies and the order; the planted correlations exist for seed 0 only.
        size: side of the pictures in pixels.
    """

    def __init__(self, seed: int = 0, size: int = 64):
        self.seed = seed
        self.size = size
        self.concepts: tuple[Concept, ...] = build_concepts()
        self._named = {concept.name: concept for concept in self.concepts}
        self._painter = Painter(self.concepts, size)
        n = len(self.concepts)
        order = np.random.Generator(np.random.PCG64(_key("zipf", seed))).permutation(n)
        ranks = np.empty(n)
        ranks[order] = np.arange(1, n + 1)
        weights = ranks ** -(ZIPF_DECADES / np.log10(n))
        self.frequencies: np.ndarray = weights / weights.sum()
        self._cumulative = np.cumsum(self.frequencies)
        self.planted = PLANTED if seed == 0 else {}

    def concept(self, name: str) -> Concept:
        """Return a concept by its name."""
        if name not in self._named:
            raise InputsError(f"Concept world: no concept {name!r}.{nearest(name, self._named)}")
        return self._named[name]

    def held_out_combination(self, concept: str, ground: str) -> bool:
        """Whether the subject split never shows this concept on this background colour (one pair in five)."""
        return _held_out(concept, ground)

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
        rng = np.random.Generator(np.random.PCG64(_key("scene", self.seed, split, index)))
        first, *dice = rng.random(48).tolist()
        closed = split == "subject"
        chosen = self.concept(concept) if concept is not None else self._draw(first, dice[0], facet, closed, uniform)
        open_facets = [name for name in FACETS if not closed or name not in chosen.held_out_facets]
        if facet is not None and facet not in open_facets:
            raise InputsError(f"Concept world: facet {facet!r} of {chosen.name!r} is held out of the subject split.")
        shown = facet or _pick(dice[1], open_facets, [FACET_RATES[FACETS.index(name)] for name in open_facets])
        return self._fill(split, index, chosen, shown, dice[2:])

    def _draw(self, first: float, second: float, facet: str | None, closed: bool, uniform: bool) -> Concept:
        """Draw a concept, again and again until its facet may be shown."""
        while True:
            n = len(self.concepts)
            number = int(first * n) if uniform else int(np.searchsorted(self._cumulative, first, side="right"))
            chosen = self.concepts[min(number, n - 1)]
            if not closed or facet is None or facet not in chosen.held_out_facets:
                return chosen
            first, second = second, (second * 977.0 + first * 31.0 + 0.137) % 1.0

    def _fill(self, split: str, index: int, concept: Concept, facet: str, dice: list) -> Scene:
        closed = split == "subject"
        palette = FACE_COLOURS if concept.family == "emotion" else tuple(COLOURS)
        colour = concept.name if concept.family == "colour" else _choice(dice[0], palette)
        grounds = [name for name in COLOURS if name != colour and not (closed and _held_out(concept.name, name))]
        hue, saturation, value = COLOURS[colour]
        word, glyph = facet == "word", concept.family in ("digit", "letter")
        turn = 10 if word else 24 if glyph or concept.family in ("pattern", "region") else 36
        size = 0.9 + 0.1 * dice[3] if word else 0.68 + 0.24 * dice[3]
        slack = 0.06 if word else 1.02 - size
        text = self._text(concept, closed, dice[12]) if facet == "photo" and dice[11] < TEXT_RATE else ""
        scene = Scene(
            split=split, index=index, concept=concept.name, facet=facet, colour=colour,
            hue=(hue + 0.04 * (dice[1] - 0.5)) % 1, saturation=saturation * (0.8 + 0.2 * dice[2]),
            value=min(1.0, value * (0.85 + 0.2 * dice[4])),
            ground=_choice(dice[5], grounds), background=_choice(dice[6], SPLIT_BACKGROUNDS[split]),
            font=_choice(dice[7], SPLIT_FONTS[split]), size=size, rotation=turn * (dice[8] - 0.5),
            x=slack * (2 * dice[9] - 1), y=(0.3 if word else slack) * (2 * dice[10] - 1),
            aspect=0.9 + 0.2 * dice[13], light=360 * dice[14], contrast=dice[15], stroke=2 + int(dice[16] * 3),
            **self._appearance(concept, split, dice[17:21]),
            text=text, text_x=0.3 * (2 * dice[21] - 1), text_y=(0.55 + 0.25 * dice[22]) * (1 if dice[23] < 0.5 else -1),
            companion=self._companion(concept, facet, closed, dice[24], dice[25]),
            badge=facet == "photo" and concept.family in ("person", "region") and dice[26] < BADGE_RATE
            and not (closed and "symbol" in concept.held_out_facets),
            alias=concept.aliases[0] if concept.aliases and facet in ("photo", "sketch") and dice[27] < ALIAS_RATE else "",
            mentions=(), template=int(dice[28] * captions.N_TEMPLATES),
            noise=_key("noise", self.seed, split, index),
        )  # fmt: skip
        return replace(scene, mentions=_mentions(scene, concept, dice[29:36]))

    def _text(self, concept: Concept, closed: bool, die: float) -> str:
        words = _written(closed)
        word = words[int(die * len(words))]
        return word if word != concept.name else words[0] if concept.name != words[0] else words[1]

    def _companion(self, concept: Concept, facet: str, closed: bool, die: float, which: float) -> str:
        if facet not in ("photo", "sketch"):
            return ""
        for name, strength in concept.associates:
            rate = COMPANION_RATES[strength]
            if die < rate:
                return "" if closed and facet in self._named[name].held_out_facets else name
            die -= rate
        return ""

    def _appearance(self, concept: Concept, split: str, dice: list) -> dict:
        looks = {
            "skin": int(dice[0] * 4) if concept.skin < 0 else concept.skin,
            "hair": concept.hair or _choice(dice[1], HAIR_STYLES),
            "hair_colour": concept.hair_colour or _choice(dice[2], list(HAIR_COLOURS)),
            "glasses": dice[3] < GLASSES_RATE,
        }
        if concept.name in self.planted and split != "score":
            factor, wanted, rate = self.planted[concept.name]
            if factor == "glasses":
                looks["glasses"] = dice[3] < rate
            elif dice[2] < rate:
                looks["hair"], looks[factor] = _choice(dice[1], HAIR_STYLES[1:]), wanted
            else:
                looks[factor] = _choice((dice[2] - rate) / (1 - rate), [c for c in HAIR_COLOURS if c != wanted])
        return looks

    def render(self, scene: Scene) -> Render:
        """Return the picture of a scene and its masks."""
        return self._painter.render(scene)

    def caption(self, scene: Scene) -> str:
        """Return the scene's caption: a template of its split, filled with name, colour and what else it mentions."""
        concept = self._named[scene.concept]
        known = captions.templates(scene.split, scene.facet)
        adjective = scene.colour if "colour" in scene.mentions else ""
        word = scene.alias or concept.name
        text = known[scene.template % len(known)].format(x=captions.noun(word, concept.family, adjective), w=word)
        if "glasses" in scene.mentions:
            text += " with glasses"
        if "hair_colour" in scene.mentions:
            text += f" with {scene.hair_colour} hair"
        if "companion" in scene.mentions:
            text += f" with {captions.noun(scene.companion, self._named[scene.companion].family)}"
        if "ground" in scene.mentions:
            text += f" on {scene.ground}"
        if "text" in scene.mentions:
            text += f" and the word {scene.text}"
        return text

    def prompts(self, concept: str | Concept, facet: str | None = None) -> list[str]:
        """Return zero-shot prompts for a concept by the score split's templates, of one facet or of all four."""
        chosen = self.concept(concept) if isinstance(concept, str) else concept
        noun = captions.noun(chosen.name, chosen.family)
        wanted = FACETS if facet is None else (facet,)
        return [text.format(x=noun, w=chosen.name) for f in wanted for text in captions.templates("score", f)]


def _mentions(scene: Scene, concept: Concept, dice: list) -> tuple[str, ...]:
    drawn = scene.facet == "photo"
    tinted = drawn and concept.family in ("shape", "digit", "letter", "pattern", "object")
    chances = {
        "colour": 0.35 if tinted and (concept.family != "object" or " m " in concept.drawing) else 0,
        "glasses": 0.4 if concept.family == "role" and scene.glasses and scene.facet in ("photo", "sketch") else 0,
        "hair_colour": 0.25 if drawn and concept.family == "role" and scene.hair != "bald" else 0,
        "companion": 0.5 if scene.companion else 0,
        "ground": 0.12 if drawn and concept.family != "region" else 0,
        "text": 0.5 if scene.text else 0,
    }
    return tuple(name for (name, chance), die in zip(chances.items(), dice, strict=False) if die < chance)


def _key(*parts: object) -> int:
    """Return a 128-bit number from the world's version and what names the draw."""
    text = "|".join(map(str, ("concepts", VERSION, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


@lru_cache(maxsize=8192)
def _held_out(concept: str, ground: str) -> bool:
    return _key("combination", concept, ground) % 5 == 0


@lru_cache(maxsize=2)
def _written(closed: bool) -> tuple[str, ...]:
    return tuple(c.name for c in build_concepts() if not (closed and "word" in c.held_out_facets))


def _choice(die: float, options):
    return options[int(die * len(options))]


def _pick(die: float, options: list, weights: list) -> str:
    total = die * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        total -= weight
        if total < 0:
            return option
    return options[-1]
