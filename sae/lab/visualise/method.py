"""Draw what drives latents, by optimisation, also steered towards facets; judged by subjects it was not optimised on.

Every latent gets a picture in every parametrisation (`parametrise`), all of them in one ascent (`optimise`). Latents,
raw neurons and random directions are chosen and labelled alike, on one half of the sample (`chosen`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sae.lab.concepts import compared
from sae.lab.finding import Finding, Picture, unit_name
from sae.lab.visualise import gallery
from sae.lab.visualise.chosen import Chosen, Meanings
from sae.lab.visualise.course import course_picture
from sae.lab.visualise.judge import Judge
from sae.lab.visualise.parametrise import spectrum_distance
from sae.lab.visualise.studio import Config, Made, Studio
from sae.lab.workbench import Workbench

__all__ = ["Config", "run"]

CONTROLS = ("neurons", "random_directions")


def run(config: Config) -> Finding:
    """Visualise latents, with controls in the first way, and say what the pictures show."""
    studio = Studio(Workbench.open(config), config)
    meanings = Meanings(studio.bench)
    kinds = _chosen(studio, meanings)
    latents, first = kinds[0], config.ways[0]
    made, images, courses = [], {}, {}
    for way in config.ways:
        for units in kinds if way == first else kinds[:1]:
            found = studio.made(units, way)
            made.append(studio.seen(units, way, None, found.pictures[:: config.n_diverse]))
            if units is latents:
                images |= gallery.images(units.numbers.tolist(), way, found, config.n_diverse)
            if units is latents and way == first:
                where = f"{studio.bench.subject.id}, {studio.hookpoint}, {way}"
                courses["lab-visualise-steps"] = course_picture(where, latents, found, config.n_diverse)
    made += [studio.faceted(units, first, facet) for facet in config.facets for units in kinds]
    for one in made:
        if one.facet is not None and one.chosen is latents:
            images |= gallery.faceted_images(one)
    figures = _figures(studio, made)
    pictures = {"lab-visualise": _gallery(studio, meanings, [one for one in made if one.facet is None])} | courses
    if config.facets:
        pictures["lab-facets"] = _gallery(studio, meanings, [one for one in made if one.facet or one.way == first])
    rows = [row for one in made for row in _rows(studio, meanings, one)]
    return Finding(
        "visualise",
        studio.bench.about,
        figures,
        rows,
        _verdict(config, list(studio.judges)[1:], figures),
        pictures,
        images,
    )


def _chosen(studio: Studio, meanings: Meanings) -> list[Chosen]:
    """Return latents, and those controls of which some unit stands for a concept."""
    bench, config = studio.bench, studio.config
    if config.latents:
        latents = meanings.given(bench.latents, list(config.latents))
    else:
        latents = meanings.choose(bench.latents, config.n_latents)
    controls = (meanings.choose_any(units, len(latents)) for units in (bench.neurons, bench.random))
    return [latents, *(one for one in controls if one is not None)]


def _figures(studio: Studio, made: Sequence[Made]) -> dict[str, float]:
    """Return shares by kind of units, way or facet, and judge; those of concepts over labelled units alone."""
    figures = {}
    for name, judge in studio.judges.items():
        figures[f"real pictures, {name}, concept"], facet = judge.accuracy
        if judge.probe is not None:
            figures[f"real pictures, {name}, facet"] = facet
    held_out = studio.frames[~studio.learnt].float() / 255
    figures["real pictures, spectrum distance"] = _mean(spectrum_distance(held_out, studio.natural))
    for one in made:
        where = f"{one.chosen.name}, {one.way}" + (f", {one.facet}" if one.facet else "")
        figures[f"{where}, n"] = float(len(one.chosen))
        figures[f"{where}, above 99 %"] = _mean(one.activation > one.chosen.strong)
        figures[f"{where}, pre-activation above 99 %"] = _mean(one.pre > one.chosen.strong)
        figures[f"{where}, spectrum distance"] = _mean(spectrum_distance(one.frames.float() / 255, studio.natural))
        for name, judge in studio.judges.items():
            for key, right in _judged(studio, one, judge).items() if (one.chosen.concept >= 0).any() else ():
                figures[f"{where}, {name}, {key}"] = _mean(right)
    return figures


def _judged(studio: Studio, one: Made, judge: Judge) -> dict[str, Tensor]:
    """Return which labelled units' pictures show what they should."""
    labelled = one.chosen.concept >= 0
    answers = {"concept": (judge.classes(one.frames) == one.chosen.concept)[labelled]}
    if one.facet is not None:
        answers["facet"] = (judge.facets(one.frames) == studio.facets.number(one.facet))[labelled]
        answers["both"] = answers["concept"] & answers["facet"]
    return answers


def _rows(studio: Studio, meanings: Meanings, one: Made) -> list[dict[str, Any]]:
    chosen, names = one.chosen, [*meanings.names, ""]
    rows = [
        {
            "units": chosen.name,
            "unit": unit_name(chosen.name, int(chosen.numbers[n])),
            "way": one.way,
            "facet": one.facet or "",
            "label": names[int(chosen.concept[n])],
            "precision": round(float(chosen.precision[n]), 3),
            "strong": round(float(chosen.strong[n]), 4),
            "pre_activation": round(float(one.pre[n]), 4),
            "activation": round(float(one.activation[n]), 4),
            "percentile": chosen.percentile(n, one.pre[n]),
        }
        for n in range(len(chosen))
    ]
    for name, judge in studio.judges.items():
        for row, answer in zip(rows, judge.classes(one.frames).tolist(), strict=True):
            row[f"shows, {name}"] = names[answer]
        if judge.probe is not None:
            facets = studio.facets.names
            for row, answer in zip(rows, judge.facets(one.frames).tolist(), strict=True):
                row[f"facet, {name}"] = facets[answer]
    return rows


def _gallery(studio: Studio, meanings: Meanings, made: Sequence[Made]) -> Picture:
    """Lay out the latents' pictures, one column for each way or facet, beside their strongest examples."""
    latents = made[0].chosen
    shown = [one for one in made if one.chosen is latents]
    examples = studio.pictures_of(latents.strongest(gallery.N_EXAMPLES).flatten())
    names = [meanings.names[n] if n >= 0 else "" for n in latents.concept.tolist()]
    titles = [f"{unit}\n{name}" for unit, name in zip(latents.numbers.tolist(), names, strict=True)]
    rows = [row for one in shown for row in _rows(studio, meanings, one)]
    what = f"{studio.bench.subject.id}, {studio.hookpoint}: pictures that drive a latent, by "
    what += "facet" if any(one.facet for one in shown) else "parametrisation"
    return Picture(
        lambda: gallery.draw(titles, shown, examples),
        rows,
        f"{what}, beside the held-out pictures on which it is strongest; number of the latent and its concept.",
    )


def _verdict(config: Config, judges: Sequence[str], figures: Mapping[str, float]) -> str:
    way, n = config.ways[0], int(figures[f"latents, {config.ways[0]}, n"])
    said = f"{figures[f'latents, {way}, above 99 %']:.0%} of {n} pictures ({way}) drive their latent above the 99th "
    said += "percentile of its activations on data"
    for judge in judges:
        parts = [("", "concept")] + [(f", {facet}", "both") for facet in config.facets]
        for facet, key in parts:
            where = f"{way}{facet}"
            if f"latents, {where}, {judge}, {key}" not in figures:
                continue  # none of the latents asked for stands for a concept
            share = figures[f"latents, {where}, {judge}, {key}"]
            random = figures.get(f"{CONTROLS[1]}, {where}, {judge}, {key}")
            what = "its concept" if key == "concept" else f"its concept as a {facet[2:]}"
            said += f"; {judge} sees {what} in {share:.0%}"
            if random is not None:
                fewest = min(n, int(figures[f"{CONTROLS[1]}, {where}, n"]))
                said += f", {compared(share, random, fewest)} random directions ({random:.0%})"
    without = [kind.replace("_", " ") for kind in CONTROLS if f"{kind}, {way}, n" not in figures]
    return said + "." + (f" None of the {' and none of the '.join(without)} stands for a concept." if without else "")


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
