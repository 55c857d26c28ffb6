"""Exact labels of a scene: each factor's value where the picture shows it, and nothing where it does not."""

import math
from collections.abc import Mapping

import numpy as np

import sae.inputs.concepts.outlines as outlines
from sae.inputs.concepts.sampling import held_out
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.textures import BACKGROUNDS
from sae.inputs.concepts.vocabulary import COLOURS, EMOTIONS, FACETS, HAIR_COLOURS, Concept
from sae.inputs.lettering import FONTS

COVERED = {"knight": ("hair", "hair_colour", "glasses", "skin"), "diver": ("glasses",)}
"""What a role's headgear hides."""
NUMBERS = ("hue", "saturation", "value", "rotation", "size", "x", "y", "aspect", "light", "map_x", "map_y")
BOOKKEEPING = ("held_out_facet", "held_out_combination", "companion_strength")
"""Families that say how a scene was drawn, not what it shows."""
_TINTED = ("shape", "colour", "digit", "letter", "pattern", "emotion")
_TINTS = {"m", "s", "d", "l", "M", "D"}


def label_names(concepts: tuple[Concept, ...]) -> dict[str, tuple[str, ...]]:
    """Return the values of every categorical factor, in the order of their numbers."""
    names = tuple(concept.name for concept in concepts)
    return {
        "concept": names,
        "facet": FACETS,
        "family": tuple(dict.fromkeys(concept.family for concept in concepts)),
        "colour": tuple(COLOURS),
        "ground": tuple(COLOURS),
        "background": tuple(BACKGROUNDS),
        "font": tuple(FONTS),
        "text": names,
        "companion": names,
        "companion_strength": ("strong", "weak"),
        "badge": ("no", "yes"),
        "eyes": EMOTIONS,
        "mouth": EMOTIONS,
        "skin": ("0", "1", "2", "3"),
        "hair": tuple(outlines.HAIR),
        "hair_colour": tuple(HAIR_COLOURS),
        "glasses": ("no", "yes"),
        "held_out_facet": ("no", "yes"),
        "held_out_combination": ("no", "yes"),
    }


def labels(scene: Scene, named: Mapping[str, Concept]) -> dict[str, str | float]:
    """Return every factor of a scene: a word, "" where the picture does not show the factor; a number, NaN likewise.

    Numbers are `NUMBERS`: hue, saturation, value of the figure in [0, 1]; rotation and light in degrees; size as a
    share of the frame's half-width; x, y in [-1, 1]; aspect as width over height before the rotation, squared root;
    map_x, map_y in [0, 1], a region's place on the map. `held_out_facet` says whether the subject split never renders
    this concept in this facet, `held_out_combination` whether it never shows it on this background colour.
    """
    concept = named[scene.concept]
    shown = {**_categories(scene, concept), **_appearance(scene, concept)}
    tinted = shown["colour"] != ""
    landscape = concept.family == "region" and scene.facet == "photo"
    numbers = {
        "hue": scene.hue if tinted and scene.colour not in ("black", "white", "gray") else math.nan,
        "saturation": scene.saturation if tinted else math.nan,
        "value": scene.value if tinted else math.nan,
        "rotation": scene.rotation * (0.4 if scene.facet == "symbol" else 0.2 if landscape else 1.0),
        "size": scene.size,
        "x": scene.x,
        "y": scene.y,
        "aspect": scene.aspect if scene.facet in ("photo", "sketch") else math.nan,
        "light": scene.light if scene.facet == "photo" else math.nan,
        "map_x": concept.map_position[0] if concept.family == "region" else math.nan,
        "map_y": concept.map_position[1] if concept.family == "region" else math.nan,
    }
    return shown | numbers


def _categories(scene: Scene, concept: Concept) -> dict[str, str]:
    grounded = scene.facet != "sketch" and not (concept.family == "region" and scene.facet == "photo")
    lettered = scene.facet == "word" or (scene.facet != "symbol" and concept.family in ("digit", "letter"))
    strengths = dict(concept.associates)
    return {
        "concept": scene.concept,
        "facet": scene.facet,
        "family": concept.family,
        "colour": scene.colour if _tinted(scene, concept) else "",
        "ground": scene.ground if grounded else "",
        "background": scene.background if grounded else "",
        "font": scene.font if lettered or scene.text else "",
        "text": scene.text,
        "companion": scene.companion,
        "companion_strength": strengths.get(scene.companion, ""),
        "badge": "yes" if scene.badge else "no",
        "held_out_facet": "yes" if scene.facet in concept.held_out_facets else "no",
        "held_out_combination": "yes" if grounded and held_out(scene.concept, scene.ground) else "no",
    }


def _tinted(scene: Scene, concept: Concept) -> bool:
    """Whether the picture shows the scene's own colour."""
    if scene.facet == "sketch":
        return concept.family == "colour"
    if scene.facet != "photo":
        return False
    slots = {part.split()[1] for part in concept.drawing.split("|") if " " in part}
    drawn = concept.family in ("object", "animal", "role", "person")
    return concept.family in _TINTED or (drawn and bool(slots & _TINTS))


def _appearance(scene: Scene, concept: Concept) -> dict[str, str]:
    """Return what is seen of a face."""
    looks: dict[str, str] = dict.fromkeys(("eyes", "mouth", "skin", "hair", "hair_colour", "glasses"), "")
    if scene.facet not in ("photo", "sketch"):
        return looks
    if concept.parts:
        return looks | {"eyes": concept.parts[0], "mouth": concept.parts[1]}
    if concept.family not in ("person", "role"):
        return looks
    worn = scene.glasses if concept.family == "role" else outlines.GLASSES in concept.drawing
    looks |= {"hair": scene.hair, "glasses": "yes" if worn else "no"}
    if scene.facet == "photo":
        looks |= {"skin": str(scene.skin), "hair_colour": scene.hair_colour if scene.hair != "bald" else ""}
    return looks | dict.fromkeys(COVERED.get(concept.name, ()), "")


def numbered(rows: list[dict[str, str | float]], names: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Return labels as arrays [examples]: int64 per category, -1 where not shown; float64 per number."""
    order = {family: {name: i for i, name in enumerate(values)} for family, values in names.items()}
    columns: dict[str, np.ndarray] = {
        family: np.array([order[family].get(str(row[family]), -1) for row in rows], np.int64) for family in names
    }
    return columns | {name: np.array([row[name] for row in rows], np.float64) for name in NUMBERS}
