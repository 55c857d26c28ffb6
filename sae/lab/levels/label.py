"""Let people label what a unit answers to at each level, without seeing how strongly: prepare first, then draw.

The first run draws equally many items from levels of equal width of the unit's pre-activation, negative ones included,
puts them in random order with every tenth shown twice, and writes them without any activation for the page
`#/label/NAME` of `sae serve CATALOG`. The same command again draws P(category | level) and the reverse from what raters
said by then, as `levels` does from exact labels (conditional probability plots; Goh et al. 2021, *Multimodal Neurons*,
Distill, whose labellers were blind to the activation too).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sae.dictionaries.sites import hookpoints_read
from sae.errors import ConfigError
from sae.evaluation.sample import Sample
from sae.features.judging.agreement import Kappa
from sae.features.judging.labelling import FILE, Labelling
from sae.features.live.given import png
from sae.features.show import token_decoder
from sae.lab.finding import Finding, Picture
from sae.lab.levels import mixes
from sae.lab.levels.labelled import Labelled, Share
from sae.lab.levels.picture import draw_levels
from sae.lab.readings import Family, Readings, neurons, random, unit_of
from sae.lab.workbench import Workbench, WorkbenchConfig
from sae.tensors import Kind

METHOD = "label"
MOST_CATEGORIES, MOST_LETTERS = 9, 40
"""One key each, and room for its name on a button."""
AGAIN = 0.1
"""Share of items that are shown twice."""
REACH = 16
"""Tokens shown on either side of the one in question."""
N_RANDOM = 100


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab label`."""

    unit: str
    """latent:12, neuron:3, or direction:concept=dog, the difference of the means with and without a label."""
    categories: tuple[str, ...]
    """What an item may be called, 2 to 9 names; figures and intervals are about the first."""
    n_levels: int = 10
    """Levels of equal width."""
    n_each: int = 15
    """Draw so many items from each level, where it has as many."""
    neurons_at: str | None = None
    """Take neurons from this hookpoint instead; the subject is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.categories
        if not 2 <= len(names) <= MOST_CATEGORIES or len(set(names)) < len(names):
            raise ConfigError(f"categories: must be 2 to {MOST_CATEGORIES} different names, got {' '.join(names)}.")
        if not all(name.strip() and len(name) <= MOST_LETTERS for name in names):
            raise ConfigError(f"categories: a name must have 1 to {MOST_LETTERS} letters.")
        if min(self.n_levels - 1, self.n_each) < 1:
            raise ConfigError("n_levels must be at least 2 and n_each at least 1.")
        if self.out is None and self.catalog is None:
            raise ConfigError("catalog: name the catalog whose page is to show the items, or their folder with --out.")


def run(config: Config) -> Finding:
    """Prepare the items of a unit, or draw what raters said of those that are prepared."""
    folder, bench = config.folders(METHOD)[-1], Workbench.open(config)
    sample = bench.any_sample
    readings, number = unit_of(bench, config.unit, config.neurons_at, sample)
    values = readings.of(range(number, number + 1))[:, 0].double().numpy()
    among = drawn_from(sample, config.unit)
    if (folder / FILE).is_file():
        labelling = Labelling(folder)
        _check_same(labelling.key, config, bench, folder)
        if not among[labelling.key["item"]].all():
            raise ConfigError(
                f"unit: the labelling in {folder} has items that {config.unit} was fitted on; prepare another one with "
                "--out."
            )
    else:
        labelling = prepare(bench, sample, values, among, config, folder)
    if not any(labelling.said().values()):
        return _waiting(labelling, bench, folder)
    found = Labelled.of(labelling, values, config.seed, among)
    rivals = {
        "random directions": _rivals(found, random(sample, N_RANDOM, config.seed)),
        "neurons": _rivals(found, neurons(bench, config.neurons_at, sample)),
    }
    return finding(found, labelling, rivals, config, bench.about)


def drawn_from(sample: Sample, unit: str) -> Bool[np.ndarray, " items"]:
    """Return the items that may be drawn: of a direction, which was fitted on one half, those of the other."""
    return ~sample.match.numpy() if unit.startswith("direction:") else np.ones(sample.n_items, dtype=bool)


def prepare(
    bench: Workbench,
    sample: Sample,
    values: Float[np.ndarray, " items"],
    among: Bool[np.ndarray, " items"],
    config: Config,
    folder: Path,
) -> Labelling:
    """Draw some of the items, and write what raters see of them."""
    _, level = mixes.levels_among(values, among, config.n_levels)
    chosen = mixes.draw(level, config.n_levels, config.n_each, config.seed)
    item = chosen[order(len(chosen), config.seed)]
    slots, images = shown(bench, sample, item)
    key = {"settings": config.settings(), "of": _hashes(bench), "item": item.tolist(), "level": level[item].tolist()}
    return Labelling.write(folder, config.categories, slots, key, images)


def order(n: int, seed: int, again: float = AGAIN) -> Int[np.ndarray, " slots"]:
    """Return items in random order, a share of those of the first half once more among the second."""
    rng = np.random.default_rng(seed)
    once, n_first = rng.permutation(n), n - n // 2
    early, late = once[:n_first], once[n_first:]
    repeated = rng.choice(early, min(n_first, math.ceil(again * n)), replace=False)
    return np.concatenate([early, rng.permutation(np.concatenate([late, repeated]))])


def shown(
    bench: Workbench, sample: Sample, item: Int[np.ndarray, " slots"]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return what each slot shows: tokens around the one in question, or the frame of an image."""
    slots: list[dict[str, Any]] = []
    images: list[bytes] = []
    pictured = hookpoints_read(bench.dictionary)[0].startswith("visual.")
    for one in item.tolist():
        example = int(sample.example[one])
        batch = bench.inputs.batch(example, example + 1)
        if pictured:
            assert batch.images is not None
            slots.append({})
            images.append(png(batch.images[0]))
            continue
        position = None if sample.rows.kind[one] == int(Kind.POOLED) else int(sample.rows.position[one])
        slots.append(excerpt(batch, position, token_decoder(bench.subject)))
    return slots, images


def excerpt(batch: Any, position: int | None, decode: Any) -> dict[str, Any]:
    """Return the tokens around a position, and its place among them; all of a text that has one vector."""
    tokens = batch.tokens[0].tolist()
    start, stop = (0, len(tokens)) if position is None else (max(0, position - REACH), position + REACH + 1)
    kinds = [int(Kind.TOKEN)] * len(tokens) if batch.kind is None else batch.kind[0].tolist()
    kept = [one for one in range(start, min(stop, len(tokens))) if kinds[one] == int(Kind.TOKEN) or one == position]
    at = None if position is None else kept.index(position)
    return {"tokens": [decode(tokens[one]) for one in kept], "at": at}


def _hashes(bench: Workbench) -> dict[str, str]:
    return {name: bench.about[name]["sha256"] for name in ("dictionary", "store")}


def _check_same(key: Mapping[str, Any], config: Config, bench: Workbench, folder: Path) -> None:
    """Refuse to read labels of other items, or of a unit that has changed since under the same name."""
    prepared = key["settings"] | {f"{name}'s sha256": value for name, value in key["of"].items()}
    now = config.settings() | {f"{name}'s sha256": value for name, value in _hashes(bench).items()}
    for name, value in now.items():
        if prepared.get(name) != value:
            raise ConfigError(
                f"{name}: the labelling in {folder} was prepared with {prepared.get(name)!r}, not {value!r}; "
                "give the same settings, or another folder with --out."
            )


def _rivals(found: Labelled, readings: Readings) -> Float[np.ndarray, " units"]:
    """Return the weighted AUC of all units for the first category, whichever sign suits a unit."""
    area = np.concatenate([found.auc(pre.double().numpy()[found.item]) for _, pre in readings.blocks()])
    return np.maximum(area, 1 - area)


def _waiting(labelling: Labelling, bench: Workbench, folder: Path) -> Finding:
    n, distinct = len(labelling.slots), len(set(labelling.key["item"]))
    verdict = (
        f"{distinct} items, {n - distinct} of them twice, wait for raters on the page #/label/{folder.name} of "
        "sae serve CATALOG; nobody has labelled any yet."
    )
    return Finding(METHOD, bench.about, {"items": distinct, "shown twice": n - distinct, "raters": 0}, [], verdict)


def finding(
    found: Labelled,
    labelling: Labelling,
    rivals: Mapping[str, Float[np.ndarray, " units"]],
    config: Config,
    about: Mapping[str, Any],
) -> Finding:
    """Return what raters said, beside other units read on the same items.

    Args:
        found: labels of the items by level.
        labelling: with the repeats.
        rivals: AUC of other units for the first category.
        config: of the run.
        about: hashes of what it was found on.
    """
    first, own = config.categories[0], float(found.auc(found.values[:, None])[0])
    figures: dict[str, float] = {"items labelled": len(found.item), "raters": len(labelling.said())}
    for name, one in (("from half the maximum", found.strong), ("all items", found.base)):
        if one is not None:
            ends = {f"{name}, P({first}), 95 % from": one.low, f"{name}, P({first}), 95 % to": one.high}
            figures |= {f"{name}, P({first})": one.value} | ends
    if not math.isnan(own):
        figures |= {f"{config.unit}, AUC": own}
        figures |= {f"{who} (95 %), AUC": float(np.quantile(of, 0.95)) for who, of in rivals.items()}
    kappas = {"repeats": [pair for of in labelling.repeats().values() for pair in of], "raters": labelling.between()}
    told = ""
    for name, pairs in kappas.items():
        if pairs and not math.isnan((kappa := Kappa.of(pairs)).value):
            figures |= {f"{name}, kappa": kappa.value, f"{name}, kappa low": kappa.interval[0],
                        f"{name}, kappa high": kappa.interval[1], f"{name}, pairs": kappa.n}  # fmt: skip
            told += f" Kappa of {name} {kappa.value:.2f} [{kappa.interval[0]:.2f}, {kappa.interval[1]:.2f}]."
    family = Family("category", config.categories, found.category)
    rows = found.levels.rows(config.categories)
    picture = Picture(lambda: draw_levels(found.levels, family, config.unit), rows, caption(config, found, labelling))
    return Finding(METHOD, about, figures, rows, say(config, found, own, rivals) + told, {"lab-labelled": picture})


def say(config: Config, found: Labelled, own: float, rivals: Mapping[str, Float[np.ndarray, " units"]]) -> str:
    """Return the verdict."""
    told, first = "its pre-activation is nowhere positive among the labelled items", config.categories[0]
    if found.strong is not None:
        told = f"{_percent(found.strong)} of the items from half its maximum on were called {first}"
    told = f"{config.unit}: {told} by raters who did not see its activation (of all items {_percent(found.base)}); "
    if math.isnan(own):
        return told + f"all were called {first} or none was, so there is nothing to compare."
    beyond = all(max(own, 1 - own) > np.quantile(of, 0.95) for of in rivals.values())
    least = max(rivals, key=lambda who: float(np.quantile(rivals[who], 0.95)))
    return told + (
        f"AUC {own:.2f}, {'above' if beyond else 'not above'} that of 95 % of the {least} on the same items"
        f"{'' if beyond else ', from which it is not distinguishable'}."
    )


def _percent(share: Share) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def caption(config: Config, found: Labelled, labelling: Labelling) -> str:
    """Return what the picture shows."""
    n_raters = len(labelling.said())
    return (
        f"Above: P(category | pre-activation), {len(found.item)} items labelled by {n_raters} "
        f"{'rater' if n_raters == 1 else 'raters'} who did not see the activation, drawn from {config.n_levels} levels "
        f"of equal width; whiskers: 95 % Wilson intervals of {config.categories[0]}; dashed: what it stays within in "
        "95 of 100 deals of the labels. Numbers: items labelled. Below: p(pre-activation | category), from the same "
        "items weighted by the mass of their level."
    )
