"""Tuning curves over continuous factors: how much of a unit a factor explains, and is the curve a step or a slope?

In the concept world photos are rendered anew, equal in all but one factor; of other inputs the numeric labels are cut
into levels, with nothing held equal. A number that all items of a class share, such as a place on a map, is a level of
the class: half of the classes is scored by the curve of the other half. Units are read by their pre-activations, as a
code of few latents would cut the flanks of every curve off. Curves are fitted on half of the pictures and scored on the
others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError, EvaluationError
from sae.inputs.concepts import ConceptInputs
from sae.lab.finding import Finding, Picture
from sae.lab.readings import Readings, latents, neurons, random
from sae.lab.tuning.picture import tuning_picture
from sae.lab.tuning.regions import Regions, known_places, region_figures, region_picture
from sae.lab.tuning.sweeps import SWEPT, Sweep, labelled, numeric, rendered
from sae.lab.tuning.tuned import Tuned
from sae.lab.workbench import Workbench, WorkbenchConfig

LATENTS, CONTROLS = "latents", ("neurons", "random directions")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of tuning curves."""

    factors: tuple[str, ...] = ()
    """Numbers to tune over, such as hue or rotation; all that the inputs can vary, or have as labels, if not given.
    Where they have none, places are enough, and only the map is drawn."""
    n_things: int = 96
    """Photos that are rendered at every level."""
    n_levels: int = 24
    """Levels of a factor."""
    n_scrambled: int = 4
    """Repeat with levels dealt out at random so often, or 199 times where they are dealt among classes."""
    map: tuple[str, str] = ("map_x", "map_y")
    """Labels that say where a class lies on a map; no map is drawn where the inputs have none."""
    places: Path | None = None
    """JSON of where classes lie instead, y downwards, {"france": [2.2, -46.2]}."""
    n_listed: int = 10
    """List so many latents for each factor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_things // 4, self.n_levels // 4, self.n_scrambled, self.n_listed) < 1:
            raise ConfigError("n_things and n_levels must be at least 4; n_scrambled and n_listed at least 1.")


def run(config: Config) -> Finding:
    """Tune all units over every factor, and draw the map of regions."""
    bench = Workbench.open(config)
    sets = {
        LATENTS: latents(bench),
        "neurons": neurons(bench),
        "random directions": random(bench.sample, bench.dictionary.d_sae, config.seed),
    }
    found: dict[str, dict[str, Tuned]] = {}
    sweeps = {factor: _sweep(bench, config, factor) for factor in _factors(bench, config)}
    for factor, sweep in sweeps.items():
        found[factor] = {
            name: Tuned.of(_answers(readings, sweep), sweep, config.n_scrambled, config.seed)
            for name, readings in sets.items()
        }
    figures = {
        f"{factor}, {name}": value
        for factor, of_factor in found.items()
        for who, tuned in of_factor.items()
        for name, value in tuned.figures(who, config.seed).items()
    }
    rows = [row for factor, of_factor in found.items() for row in _rows(sweeps[factor], of_factor[LATENTS], config)]
    pictures: dict[str, Picture] = {"lab-tuning": tuning_picture(sweeps, found, figures)} if sweeps else {}
    if places := known_places(bench, config.map, config.places):
        regions = {name: Regions.of(readings, bench, places) for name, readings in sets.items()}
        figures |= region_figures(regions, config.seed)
        pictures["lab-regions"] = region_picture(regions, bench.inputs, config.seed)
    return Finding("tuning", bench.about, figures, rows, _verdict(figures, sweeps), pictures)


def _factors(bench: Workbench, config: Config) -> tuple[str, ...]:
    if config.factors:
        return config.factors
    if isinstance(bench.inputs, ConceptInputs):
        return (*SWEPT, *(axis for axis in config.map if axis in numeric(bench.sample)))
    if not (known := tuple(numeric(bench.sample))) and config.places is None:
        raise EvaluationError(f"{bench.inputs.describe()}: these inputs have no numbers as labels to tune over.")
    return known


def _sweep(bench: Workbench, config: Config, factor: str) -> Sweep:
    inputs = bench.inputs
    if not isinstance(inputs, ConceptInputs) or (factor not in SWEPT and factor in numeric(bench.sample)):
        classes = getattr(inputs, "classes", None)
        of = None if classes is None else bench.sample.labels[classes.family]
        return labelled(bench.sample, factor, config.n_levels, of, config.seed)
    hookpoint = bench.dictionary.provenance["hookpoint"]
    return rendered(bench.subject, hookpoint, inputs.world, factor, config.n_things, config.n_levels, config.seed)


def _answers(readings: Readings, sweep: Sweep) -> Float[Tensor, "items units"]:
    on = Readings(readings.name, readings.dictionary, sweep.sample)
    return torch.cat([block for _, block in on.blocks()], 1)


def _rows(sweep: Sweep, tuned: Tuned, config: Config) -> list[dict[str, Any]]:
    curves = tuned.curves
    top = curves.explained.topk(min(config.n_listed, len(curves.explained))).indices.tolist()
    preferred, width = curves.preferred, curves.width
    return [
        {
            "factor": sweep.factor,
            "latent": latent,
            "explained": round(float(curves.explained[latent]), 4),
            "of_all_variance": round(float(curves.of_all[latent]), 4),
            "tuned": bool(tuned.tuned[latent]),
            "prefers": round(sweep.values[int(preferred[latent])], 4),
            "width": round(float(width[latent]), 3),
            "step_likeness": round(float(tuned.step[latent]), 3),
        }
        for latent in top
    ]


def _verdict(figures: Mapping[str, float], sweeps: Mapping[str, Sweep]) -> str:
    if not sweeps:
        return _map_verdict(figures)
    told, set_apart, kinds = [], [], []
    for factor, sweep in sweeps.items():
        among = f", dealt among {sweep.n_classes} classes" if sweep.n_classes else ""
        name, controls = f"{factor}, {LATENTS}", [f"{factor}, {who}" for who in CONTROLS]
        told.append(f"{factor} {figures[f'{name}, tuned']:.1%} ({figures[f'{name}, tuned by chance']:.1%}{among})")
        if all(figures[f"{name}, explained, low"] > figures[f"{one}, explained, high"] for one in controls):
            set_apart.append(factor)
        low, high = (figures.get(f"{name}, step-like, {end}", float("nan")) for end in ("low", "high"))
        if low > 0.5 or high < 0.5:
            kinds.append(f"{factor} {'a step' if low > 0.5 else 'smooth'}")
    apart = f"for {', '.join(set_apart)} more than" if set_apart else "for no factor more than"
    return (
        f"Latents whose answer a factor explains beyond chance (with dealt levels): {'; '.join(told)}; it explains "
        f"{apart} of neurons and random directions. Most tuned latents' mean curves are "
        f"{', '.join(kinds) or 'neither a step nor smooth for any factor'}."
    )


def _map_verdict(figures: Mapping[str, float]) -> str:
    sets = (LATENTS, *CONTROLS)
    apart = "; ".join(f"{who} {figures[f'map, {who}, tell regions apart']:.0%}" for who in sets)
    alike = "; ".join(f"{who} {figures.get(f'map, {who}, clustered', 0):.1%}" for who in sets)
    return (
        f"Units that tell places apart: {apart}. Of these, units that answer neighbours on the map alike beyond chance "
        f"(5 % do with dealt places): {alike}."
    )
