"""Which scenes there are: how often what is shown, with what, and what is kept from which split."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

import sae.inputs.concepts.captions as captions
from sae.inputs.concepts.outlines import HAIR
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
)
from sae.inputs.lettering import SPLIT_FONTS

VERSION = "1"
"""Changes whenever a pixel or a caption of any scene does."""
FACET_RATES = (0.34, 0.20, 0.30, 0.16)
ZIPF_DECADES = 3.0
TEXT_RATE = 0.10
"""Chance of incidental text in a photo."""
PLANTED = {"pilot": ("glasses", True, 0.9), "judge": ("hair_colour", "gray", 0.9)}
"""Spurious correlations of seed 0: role, appearance, value, and how often it holds (else 0.25 and 0.125)."""
GLASSES_RATE = 0.25
HAIR_STYLES = tuple(HAIR)
FACE_COLOURS = ("yellow", "orange", "pink", "cyan", "green", "gray")


class Sampler:
    """Draws scenes; see `World.scene`."""

    def __init__(self, concepts: tuple[Concept, ...], seed: int):
        self.concepts = concepts
        self.named = {concept.name: concept for concept in concepts}
        self.seed = seed
        self.planted = PLANTED if seed == 0 else {}
        n = len(concepts)
        order = np.random.Generator(np.random.PCG64(key("zipf", seed))).permutation(n)
        ranks = np.empty(n)
        ranks[order] = np.arange(1, n + 1)
        weights = ranks ** -(ZIPF_DECADES / np.log10(n))
        self.frequencies = weights / weights.sum()
        self._cumulative = np.cumsum(self.frequencies)
        names = [concept.name for concept in concepts]
        readable = [concept.name for concept in concepts if "word" not in concept.held_out_facets]
        self._words = {False: names, True: readable}

    def scene(self, split: str, index: int, concept: Concept | None, facet: str | None, uniform: bool) -> Scene:
        """Return a scene; `concept` and `facet` are drawn where None, and must be allowed in the split."""
        rng = np.random.Generator(np.random.PCG64(key("scene", self.seed, split, index)))
        first, *dice = rng.random(48).tolist()
        closed = split == "subject"
        chosen = self._draw(first, dice[0], facet, closed, uniform) if concept is None else concept
        allowed = [name for name in FACETS if not closed or name not in chosen.held_out_facets]
        shown = facet or _pick(dice[1], allowed, [FACET_RATES[FACETS.index(name)] for name in allowed])
        return self._fill(split, index, chosen, shown, dice[2:])

    def _draw(self, first: float, second: float, facet: str | None, closed: bool, uniform: bool) -> Concept:
        """Draw a concept, again and again until its facet may be shown."""
        while True:
            n = len(self.concepts)
            number = int(first * n) if uniform else int(np.searchsorted(self._cumulative, first, side="right"))
            chosen = self.concepts[min(number, n - 1)]
            if not closed or facet is None or facet not in chosen.held_out_facets:
                return chosen
            # Anything reproducible would do; the last digits of the two numbers are as good as new dice.
            first, second = second, (second * 977.0 + first * 31.0 + 0.137) % 1.0

    def _fill(self, split: str, index: int, concept: Concept, facet: str, dice: list) -> Scene:
        closed = split == "subject"
        palette = FACE_COLOURS if concept.family == "emotion" else tuple(COLOURS)
        colour = concept.name if concept.family == "colour" else _choice(dice[0], palette)
        grounds = [name for name in COLOURS if name != colour and not (closed and held_out(concept.name, name))]
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
            alias=self._alias(concept, facet, dice[27]),
            mentions=(), template=int(dice[28] * captions.N_TEMPLATES),
            noise=key("noise", self.seed, split, index),
        )  # fmt: skip
        return replace(scene, mentions=_mentions(scene, concept, dice[29:36]))

    def _text(self, concept: Concept, closed: bool, die: float) -> str:
        words = self._words[closed]
        word = _choice(die, words)
        return word if word != concept.name else next(other for other in words if other != word)

    def _companion(self, concept: Concept, facet: str, closed: bool, die: float, which: float) -> str:
        if facet not in ("photo", "sketch"):
            return ""
        for name, strength in concept.associates:
            rate = COMPANION_RATES[strength]
            if die < rate:
                return "" if closed and facet in self.named[name].held_out_facets else name
            die -= rate
        return ""

    def _alias(self, concept: Concept, facet: str, die: float) -> str:
        named = concept.aliases and facet in ("photo", "sketch") and die < ALIAS_RATE
        return concept.aliases[0] if named else ""

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


def key(*parts: object) -> int:
    """Return a 128-bit number from the world's version and what names the draw."""
    text = "|".join(map(str, ("concepts", VERSION, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


@lru_cache(maxsize=8192)
def held_out(concept: str, ground: str) -> bool:
    return key("combination", concept, ground) % 5 == 0


def _choice(die: float, options: Sequence[str]) -> str:
    return options[int(die * len(options))]


def _pick(die: float, options: Sequence[str], weights: Sequence[float]) -> str:
    total = die * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        total -= weight
        if total < 0:
            return option
    return options[-1]
