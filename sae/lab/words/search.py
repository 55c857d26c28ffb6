"""Find the latents that stand for a phrase, through the subject's own path to the space that images and texts share.

A unit is scored for a phrase by its place in the joint space (`JointSpace.places`) and the phrase's direction there, a
mean over prompts less the mean word (`features.live.words.Words`); their cosine ranks the units. Goh et al. 2021
(*Multimodal Neurons in Artificial Neural Networks*, Distill) search neurons so, through the attention pool. What is
found is confirmed without any label: boosted in a blank image, the first unit should raise the phrase's cosine more
than that of its rivals, the names of all classes and the other phrases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import ConfigError
from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.evaluation.sample import Units
from sae.lab.concepts import Concepts, compared, too_few
from sae.lab.finding import Finding
from sae.lab.words.boosting import Boosted, Texts, alone, drawn
from sae.lab.words.joint import JointSpace, Way, before_selection
from sae.lab.words.search_picture import READINGS, UNITS, search_picture
from sae.lab.workbench import Workbench, WorkbenchConfig

DRAWN = "drawn"
"""In the names of figures, of units drawn at random."""
N_DRAWN = 32
"""Latents to draw for a phrase that is asked for; for the many classes one each tells as much."""
Places = Mapping[str, Mapping[str, Float[Tensor, "units d_joint"]]]
"""Of every set of units, by way."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a search."""

    phrases: tuple[str, ...] = ()
    """List what is found for these; if empty, for every class of the inputs."""
    n_top: int = 5
    """Units to list for a phrase."""
    way: Way = "path"
    """Places by what latents write (path), or by the images that they fire on (covariance)."""
    n_images: int = 1024
    """Average attributions over so many images of the half to match on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_top, self.n_images) < 1:
            raise ConfigError(f"n_top, n_images: must be at least 1, got {self.n_top} and {self.n_images}.")


def search(
    places: Float[Tensor, "units d_joint"], phrases: Float[Tensor, "phrases d_joint"], n: int = 5
) -> tuple[Int[Tensor, "n phrases"], Float[Tensor, "n phrases"]]:
    """Return the units nearest to each phrase by the cosine, nearest first; units without a place come last."""
    cosines = F.normalize(places, dim=1) @ F.normalize(phrases, dim=1).T
    cosines = cosines.masked_fill(~places.any(1, keepdim=True), -1.0)
    top = cosines.topk(min(n, len(places)), dim=0)
    return top.indices, top.values


def drawn_hits(detects: Bool[Tensor, "units concepts"], n: int) -> float:
    """Return how many concepts one of n units drawn at random detects, the mean over all draws without replacement."""
    n_units, n = len(detects), min(n, len(detects))
    return sum(1 - comb(n_units - hits, n) / comb(n_units, n) for hits in detects.sum(0).tolist())


def run(config: Config) -> Finding:
    """Search for phrases, and say how often what is found for a class of the inputs detects it."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    texts, words = Texts.of(space, config.phrases), torch.arange(len(space.words.names))
    asked = texts.numbers(config.phrases) if config.phrases else words
    bench, concepts = space.bench, Concepts.of(space)
    sets = dict(zip(UNITS, (bench.latents, bench.neurons, bench.random), strict=True))
    places: Places = {
        way: dict(zip(sets, space.places(list(sets.values()), way), strict=True)) for way in get_args(Way)
    }
    auc = {
        (name, reading): concepts.auc(responses)
        for name, units in sets.items()
        for reading, responses in zip(READINGS, (units.responses, before_selection(units)), strict=True)
    }
    boosted = _boosted(space, sets, places, space.words.directions, words)
    figures = _found(space, concepts, auc, places, config.n_top) | _confirmed(boosted)
    if config.phrases:
        boosted = _boosted(space, sets, places, texts.directions, asked, N_DRAWN)
        figures |= {"n_phrases": float(len(asked)), "n_texts": float(len(texts.names))}
        figures |= {f"phrases, {name}": value for name, value in _confirmed(boosted).items()}
    names = [texts.names[number] for number in asked.tolist()]
    found = search(places[config.way]["latents"], texts.directions[asked], config.n_top)
    rows = _rows(names, concepts, auc, found, (boosted["latents", config.way], boosted["latents", DRAWN]))
    picture = search_picture(figures, config.way, config.n_top)
    return Finding("search", bench.about, figures, rows, _verdict(figures, config.way), {"lab-search": picture})


def _found(
    space: JointSpace, concepts: Concepts, areas: Mapping[tuple[str, str], Tensor], places: Places, n_top: int
) -> dict[str, float]:
    phrases, found = space.words.directions[concepts.numbers], concepts.figures
    for (name, reading), auc in areas.items():
        detects = auc > MONOSEMANTIC_AUC
        for way, of_way in places.items():
            top = search(of_way[name], phrases, n_top)[0]
            found[f"{name}, {reading}, {way}"] = concepts.share(detects.gather(0, top).any(0))
        found[f"{name}, {reading}, drawn"] = drawn_hits(detects, n_top) / concepts.n_all
        found[f"{name}, {reading}, any unit"] = concepts.share(detects.any(0))
    return found


def _boosted(
    space: JointSpace,
    sets: Mapping[str, Units],
    places: Places,
    texts: Float[Tensor, "texts d_joint"],
    asked: Int[Tensor, " phrases"],
    n_drawn: int = 1,
) -> dict[tuple[str, str], Boosted]:
    """Boost the first unit found for each of some texts, and latents drawn at random for each."""
    found = {}
    for way, of_way in places.items():
        for name, units in sets.items():
            top = search(of_way[name], texts[asked], 1)[0][0]
            found[name, way] = Boosted.of(space, units, alone(top), texts, asked)
    latents = space.bench.latents
    at_random = alone(drawn(latents, n_drawn * len(asked), space.bench.seed))
    return found | {("latents", DRAWN): Boosted.of(space, latents, at_random, texts, asked.repeat(n_drawn))}


def _confirmed(boosted: Mapping[tuple[str, str], Boosted]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (name, way), one in boosted.items():
        found |= one.figures(f"{name}, boosted, {way}")
    return found


def _rows(
    names: Sequence[str],
    concepts: Concepts,
    areas: Mapping[tuple[str, str], Tensor],
    found: tuple[Int[Tensor, "n phrases"], Float[Tensor, "n phrases"]],
    boosted: tuple[Boosted, Boosted],
) -> list[dict[str, Any]]:
    """Return a row for every phrase; areas are known for those that are classes alone."""
    rows = []
    for place, name in enumerate(names):
        column, units = concepts.column(name), found[0][:, place]
        row: dict[str, Any] = {"phrase": name, "latents": " ".join(map(str, units.tolist()))}
        row["cosine"] = round(float(found[1][0, place]), 3)
        for reading in READINGS:
            best = "" if column is None else round(float(areas["latents", reading][units, column].max()), 3)
            row[f"auc, {reading}"] = best
        rows.append(row | boosted[0].row(place, len(names)) | boosted[1].row(place, len(names), "drawn_"))
    return rows


def _verdict(figures: Mapping[str, float], way: str) -> str:
    n = int(figures["n_concepts"])
    activation, before = (_beside(figures, reading, way) for reading in READINGS)
    text = (
        f"One of the first latents found by name detects {figures[f'latents, {READINGS[0]}, {way}']:.0%} of {n} "
        f"concepts by its activation, where any latent does for {figures[f'latents, {READINGS[0]}, any unit']:.0%}: "
        f"{activation}. Before selection it does for {figures[f'latents, {READINGS[1]}, {way}']:.0%}: {before}."
        f"{too_few(figures)} Boosted in a blank image, {_risen(figures, '', way)}."
    )
    if "n_phrases" not in figures:
        return text
    asked = f"Of the {figures['n_phrases']:.0f} phrases asked for, among {figures['n_texts']:.0f} texts,"
    return f"{text} {asked} {_risen(figures, 'phrases, ', way)}."


def _beside(figures: Mapping[str, float], reading: str, way: str) -> str:
    """Say how what is found over latents compares with the best control, whose share by the other way is told too."""
    (other,) = set(get_args(Way)) - {way}
    best = max(UNITS[1:], key=lambda name: figures[f"{name}, {reading}, {way}"])
    control = figures[f"{best}, {reading}, {way}"]
    told = compared(figures[f"latents, {reading}, {way}"], control, int(figures["n_concepts"]))
    return (
        f"{told} the best control, {best.replace('_', ' ')} with {control:.0%} "
        f"({figures[f'{best}, {reading}, {other}']:.0%} by {other})"
    )


def _risen(figures: Mapping[str, float], of: str, way: str) -> str:
    said = (figures[f"{of}latents, boosted, {way}, {what}"] for what in ("rises most", "mean rise"))
    by_chance = (figures[f"{of}latents, boosted, {DRAWN}, {what}"] for what in ("rises most", "mean rise"))
    return "{:.0%} rise most, by {:+.2f} in the cosine on average (of latents drawn at random {:.0%}, {:+.2f})".format(
        *said, *by_chance
    )
