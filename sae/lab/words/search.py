"""Find the latents that stand for a phrase, through the subject's own path to the space that images and texts share.

A unit is scored for a phrase by its place in the joint space (`JointSpace.places`) and the phrase's direction there, a
mean over prompts less the mean word (`features.live.words.Words`); their cosine ranks the units. Goh et al. 2021
(*Multimodal Neurons in Artificial Neural Networks*, Distill) search neurons so, through the attention pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import ConfigError
from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.evaluation.sample import Units
from sae.lab.concepts import Concepts, compared
from sae.lab.finding import Finding, Picture
from sae.lab.words.joint import JointSpace, Way, before_selection, rank_of_own
from sae.lab.workbench import Workbench, WorkbenchConfig

READINGS = ("activation", "pre-activation")
"""What a unit is read by: as its dictionary selects it, or before anything is selected."""
BLUE = "#0072B2"
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


def found_share(auc: Float[Tensor, "units concepts"], top: Int[Tensor, "n concepts"]) -> Float[Tensor, ""]:
    """Return for how many of the concepts one of the units found for it has a held-out AUC above 0.9."""
    return (auc.gather(0, top).amax(0) > MONOSEMANTIC_AUC).double().mean()


def drawn_share(auc: Float[Tensor, "units concepts"], n: int) -> float:
    """Return the same share for n units drawn at random, the mean over all draws without replacement."""
    hits, n_units = (auc > MONOSEMANTIC_AUC).sum(0).tolist(), len(auc)
    n = min(n, n_units)
    return sum(1 - comb(n_units - hit, n) / comb(n_units, n) for hit in hits) / len(hits)


def run(config: Config) -> Finding:
    """Search for phrases, and say how often what is found for a class of the inputs detects it."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    towards = space.words.towards(config.phrases) if config.phrases else space.words.directions
    bench, concepts = space.bench, Concepts.of(space)
    sets = {"latents": bench.latents, "neurons": bench.neurons, "random_directions": bench.random}
    places: Places = {
        way: dict(zip(sets, space.places(list(sets.values()), way), strict=True)) for way in get_args(Way)
    }
    auc = {
        (name, reading): concepts.auc(responses)
        for name, units in sets.items()
        for reading, responses in zip(READINGS, (units.responses, before_selection(units)), strict=True)
    }
    risen = _rises(space, sets, places)
    figures = _found(space, concepts, auc, places, config.n_top) | _confirmed(space, risen)
    rows = _rows(config, space, concepts, auc, risen, (places[config.way]["latents"], towards))
    picture = Picture(
        lambda: _draw(figures, config.way),
        _picture_rows(figures, config.way),
        f"Share of the inputs' concepts for which one of the first {config.n_top} units found by the concept's name "
        f"detects it with an AUC above {MONOSEMANTIC_AUC} on held-out images, places by {config.way}; the bar reaches "
        "from as many units drawn at random to the best of all units.",
    )
    return Finding("search", bench.about, figures, rows, _verdict(figures, config.way), {"lab-search": picture})


def _found(
    space: JointSpace, concepts: Concepts, areas: Mapping[tuple[str, str], Tensor], places: Places, n_top: int
) -> dict[str, float]:
    phrases, found = space.words.directions[concepts.numbers], {"n_concepts": float(len(concepts.numbers))}
    for (name, reading), auc in areas.items():
        for way, of_way in places.items():
            found[f"{name}, {reading}, {way}"] = float(found_share(auc, search(of_way[name], phrases, n_top)[0]))
        found[f"{name}, {reading}, drawn"] = drawn_share(auc, n_top)
        found[f"{name}, {reading}, any unit"] = float((auc.amax(0) > MONOSEMANTIC_AUC).double().mean())
    return found


def _rises(
    space: JointSpace, sets: Mapping[str, Units], places: Places
) -> dict[tuple[str, str], Int[Tensor, " words"]]:
    """Boost the first unit found for every word, and a latent drawn at random; return the rank of the word's rise."""
    own, ranks = torch.arange(len(space.words.names)), {}
    for way, of_way in places.items():
        for name, units in sets.items():
            top = search(of_way[name], space.words.directions, 1)[0][0]
            ranks[name, way] = rank_of_own(space.rises(units, _alone(top)), own)
    latents, generator = space.bench.latents, torch.Generator().manual_seed(space.bench.seed)
    alive = latents.alive.nonzero()[:, 0]
    drawn = alive[torch.randint(len(alive), own.shape, generator=generator)]
    return ranks | {("latents", "drawn"): rank_of_own(space.rises(latents, _alone(drawn)), own)}


def _alone(units: Int[Tensor, " n"]) -> list[dict[int, float]]:
    return [{unit: 1.0} for unit in units.tolist()]


def _confirmed(space: JointSpace, risen: Mapping[tuple[str, str], Tensor]) -> dict[str, float]:
    figures = {}
    for (name, way), ranks in risen.items():
        figures[f"{name}, boosted, {way}, rises most"] = float((ranks == 1).double().mean())
        figures[f"{name}, boosted, {way}, median rank"] = float(ranks.double().median())
    return figures


def _rows(
    config: Config,
    space: JointSpace,
    concepts: Concepts,
    areas: Mapping[tuple[str, str], Tensor],
    risen: Mapping[tuple[str, str], Tensor],
    asked: tuple[Float[Tensor, "units d_joint"], Float[Tensor, "phrases d_joint"]],
) -> list[dict[str, Any]]:
    words, column = space.words.names, {int(number): place for place, number in enumerate(concepts.numbers)}
    top, cosines = search(*asked, config.n_top)
    rows = []
    for place, name in enumerate(config.phrases or tuple(words)):
        number, found = words.index(name) if name in words else -1, top[:, place]
        row: dict[str, Any] = {"phrase": name, "latents": " ".join(map(str, found.tolist()))}
        row["cosine"] = round(float(cosines[0, place]), 3)
        for reading in READINGS:
            best = areas["latents", reading][found, column[number]].max() if number in column else None
            row[f"auc, {reading}"] = "" if best is None else round(float(best), 3)
        rows.append(row | {"rank_of_rise": int(risen["latents", config.way][number]) if number >= 0 else ""})
    return rows


def _verdict(figures: Mapping[str, float], way: str) -> str:
    by_activation, by_pre_activation = (figures[f"latents, {reading}, {way}"] for reading in READINGS)
    controls = ("neurons", "random_directions")
    best = max(controls, key=lambda name: figures[f"{name}, {READINGS[1]}, {way}"])
    control = figures[f"{best}, {READINGS[1]}, {way}"]
    told = compared(by_pre_activation, control, int(figures["n_concepts"]))
    return (
        f"One of the first latents found by name detects {by_activation:.0%} of {figures['n_concepts']:.0f} concepts "
        f"by its activation, where any latent does for {figures[f'latents, {READINGS[0]}, any unit']:.0%}, and "
        f"{by_pre_activation:.0%} before selection: {told} the best control, {best.replace('_', ' ')} with "
        f"{control:.0%}; boosted, {figures[f'latents, boosted, {way}, rises most']:.0%} of the words rise most."
    )


def _picture_rows(figures: Mapping[str, float], way: str) -> list[dict[str, Any]]:
    return [
        {"units": name, "reading": reading, "how": how, "share": figures[f"{name}, {reading}, {key}"]}
        for name in ("latents", "neurons", "random_directions")
        for reading in READINGS
        for how, key in (("found by name", way), ("drawn at random", "drawn"), ("any unit", "any unit"))
    ]


def _draw(figures: Mapping[str, float], way: str) -> Any:
    """Draw one panel per reading: a dot for what is found, between what random units and the best units reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 2.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = ("latents", "neurons", "random_directions")
    rows = _picture_rows(figures, way)
    for axes, reading in zip(panels, READINGS, strict=True):
        for place, name in enumerate(names):
            values = {row["how"]: row["share"] for row in rows if (row["units"], row["reading"]) == (name, reading)}
            axes.plot((values["drawn at random"], values["any unit"]), (place, place), color="0.85", linewidth=5)
            axes.plot(values["drawn at random"], place, "|", color="0.35", markersize=11, label="drawn at random")
            axes.plot(values["any unit"], place, "d", color="0.55", markersize=6, label="any unit")
            axes.plot(
                values["found by name"],
                place,
                markersize=7,
                linestyle="",
                label="found by name",
                color="#0072B2",
                marker="o",
            )
            axes.annotate(
                f"{values['found by name']:.0%}",
                (values["found by name"], place),
                (0, 9),
                fontsize=8,
                ha="center",
                textcoords="offset points",
            )
        axes.tick_params(labelsize=9)
        axes.set_title(f"read by {reading}", fontsize=9, loc="left")
        axes.set(xlim=(-0.04, 1.04), xlabel="share of concepts", ylim=(len(names) - 0.5, -0.7))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[:3], labels[:3], loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure
