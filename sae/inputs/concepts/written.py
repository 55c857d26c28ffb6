"""Scenes of the concept world with a word written across them, as a typographic attack would."""

from dataclasses import dataclass

import numpy as np

import sae.inputs.concepts.captions as captions
from sae.inputs.concepts.sampling import key
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.world import World
from sae.inputs.lettering import SPLIT_FONTS
from sae.inputs.writing import Writing

OWN_NAME_RATE = 0.25
"""How often the word is the name of what is shown."""
NAMED_RATE = 0.5
"""How often the caption says the word and not what is shown."""


@dataclass(frozen=True)
class Written:
    """A word across a scene, and whether the caption is about the word."""

    writing: Writing
    named: bool


def written(world: World, scene: Scene, share: float) -> Written | None:
    """Return what is written across a scene, the same everywhere; None for all but `share` of the scenes.

    Pictures of words have nothing else on them. Of the subject split only words are written that it may show.
    """
    rng = np.random.Generator(np.random.PCG64(key("written", world.seed, scene.split, scene.index)))
    dice = rng.random(10).tolist()
    if scene.facet == "word" or dice[0] >= share:
        return None
    closed = scene.split == "subject"
    words = [c.name for c in world.concepts if not (closed and "word" in c.held_out_facets)]
    own = dice[1] < OWN_NAME_RATE and scene.concept in words
    fonts = SPLIT_FONTS[scene.split]
    writing = Writing(
        word=scene.concept if own else words[int(dice[2] * len(words))],
        font=fonts[int(dice[3] * len(fonts))],
        width=0.65 + 0.3 * dice[4],
        height=0.2 + 0.25 * dice[5],
        x=2 * dice[6] - 1,
        y=1.6 * dice[7] - 0.8,
        plate=dice[8] < 0.75,
        dark=dice[9] < 0.6,
    )
    return Written(writing, named=rng.random() < NAMED_RATE)


def caption(world: World, scene: Scene, writing: Written | None) -> str:
    """Return the caption of a scene, or that of its word where the word is what it is about."""
    if writing is None or not writing.named:
        return world.caption(scene)
    known = captions.templates(scene.split, "word")
    return known[scene.template % len(known)].format(w=writing.writing.word)
