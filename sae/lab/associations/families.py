"""Families of latents: regions, emotions, letters; found by label and by text, and whether frequent classes get one.

Goh et al. 2021 (*Multimodal Neurons*, Distill) count a neuron as one for regions if all of the words nearest to it are
geographic: 64 of 2,560. The same is counted here of latents, beside what labels say of them, and of the controls. A
latent has a group by label if the class that it separates best is a member, with a held-out AUC above 0.9, and by text
if the words nearest to its place in the joint space are all members. Both read pre-activations.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import ConfigError, EvaluationError, nearest
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units
from sae.inputs.base import Frequent
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.associations.families_picture import families_picture
from sae.lab.associations.frequency import MIN_CLASSES, OTHER_SEED, Owned, Related
from sae.lab.associations.grouping import Grouped, by_label, by_text
from sae.lab.concepts import Concepts, beside, too_few
from sae.lab.finding import Finding
from sae.lab.spread import Drawn, Spread, joined
from sae.lab.words.joint import JointSpace, Way, before_selection
from sae.lab.workbench import Workbench, WorkbenchConfig

GROUPS = "family"
"""Family of labels whose value is the group of a class, where no file names the groups."""
LATENTS, CONTROLS = "latents", ("neurons", "random directions")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of the families of latents."""

    groups: Path | None = None
    """JSON of groups and their classes, {"region": ["france", "japan"]}; by the labels' `family` if not given."""
    frequencies: Path | None = None
    """JSON of how often each class occurs in training, {"dog": 0.01}; what the inputs know if not given."""
    n_words: int = 3
    """Words nearest to a latent that must be of one group."""
    way: Way = "path"
    """Places by what latents write (path), or by the images that they fire on (covariance)."""
    n_images: int = 256
    """Average attributions over so many images of the half to match on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_words, self.n_images) < 1:
            raise ConfigError("n_words and n_images must be at least 1.")


def run(config: Config) -> Finding:
    """Count the families of latents, and relate frequency with having a latent of one's own."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    bench, concepts = space.bench, Concepts.of(space)
    groups, group = known_groups(bench, space.words.names, config.groups)
    sets = dict(zip((LATENTS, *CONTROLS), (bench.latents, bench.neurons, bench.random), strict=True))
    places = space.places(list(sets.values()), config.way)
    areas = {name: _areas(concepts, before_selection(units)) for name, units in sets.items()}
    grouped = {
        name: Grouped(
            by_label(areas[name][0], areas[name][1], group[concepts.numbers]),
            by_text(place, space.words.directions, group, config.n_words),
        )
        for name, place in zip(sets, places, strict=True)
    }
    figures = {
        name: value for who, one in grouped.items() for name, value in _figures(who, one, groups, config).items()
    }
    owned = {name: Owned.of(*_areas(concepts, units.responses)) for name, units in sets.items()}
    related = _related(bench, concepts, owned, group, config)
    figures |= {f"{who}, classes with a unit of their own": concepts.share(one.own) for who, one in owned.items()}
    figures |= concepts.figures
    for who, one in related.items():
        figures |= one.figures(who)
        for what, above in related[LATENTS].above(one).items() if who != LATENTS else ():
            figures |= above.figures(f"{LATENTS}, {what} above {who}")
    frequency = known_frequencies(bench, config.frequencies) if related else None
    rows = _rows(sets, grouped, groups, space, concepts, owned[LATENTS])
    drawn = None if frequency is None else (frequency[concepts.numbers], owned[LATENTS], related)
    picture = families_picture(groups, grouped, drawn)
    return Finding(
        "families", bench.about, figures, rows, _verdict(figures, grouped, related), {"lab-families": picture}
    )


def _areas(
    concepts: Concepts, responses: Responses
) -> tuple[Float[Tensor, "units classes"], Float[Tensor, "units classes"]]:
    return concepts.auc(responses, on_match=True), concepts.auc(responses)


def known_groups(bench: Workbench, names: Sequence[str], path: Path | None) -> tuple[list[str], Int[Tensor, " words"]]:
    """Return what groups there are, and the group of every class, -1 for a class of none.

    Raises:
        EvaluationError: the file is no such mapping, or neither a file nor labels tell groups.
    """
    if path is not None:
        given = _mapping(path, 'such as {"region": ["france"]}')
        place = {name: number for number, name in enumerate(names)}
        group = torch.full((len(names),), -1)
        for number, members in enumerate(given.values()):
            for name in members:
                if name not in place:
                    raise EvaluationError(f"groups: no class {name!r}.{nearest(name, names)}")
                group[place[name]] = number
        return list(given), group
    sample, family = bench.sample, bench.inputs.classes.family  # type: ignore[attr-defined]
    if GROUPS not in sample.labels:
        raise EvaluationError(
            f"{bench.inputs.describe()}: no labels {GROUPS!r} to group classes by; give --groups FILE."
        )
    number, of = (torch.from_numpy(sample.labels[one]).long() for one in (family, GROUPS))
    found = torch.full((len(names),), -1)
    found[number[number >= 0]] = of[number >= 0]
    return list(sample.label_names[GROUPS]), found


def known_frequencies(bench: Workbench, path: Path | None) -> Float[Tensor, " words"] | None:
    """Return how often each class occurs, from a file or by what the inputs know; None where nobody knows."""
    inputs: Any = bench.inputs
    names = inputs.label_names[inputs.classes.family]
    if path is None and not isinstance(inputs, Frequent):
        return None
    given = inputs.frequencies() if path is None else _mapping(path, 'such as {"dog": 0.01}')
    missing = [name for name in names if not given.get(name)]
    if missing:
        raise EvaluationError(f"frequencies: {missing[0]!r} and {len(missing) - 1} other classes have none.")
    for name in names:
        if not isinstance(given[name], Real) or not given[name] > 0:
            raise EvaluationError(f"frequencies: that of {name!r} must be a number above 0, got {given[name]!r}.")
    return torch.tensor([float(given[name]) for name in names], dtype=torch.float64)


def _mapping(path: Path, such: str) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise EvaluationError(f"{path}: not a JSON {such}: {cause}") from cause
    if not isinstance(given, dict):
        raise EvaluationError(f"{path}: not a JSON {such}.")
    return given


def _related(
    bench: Workbench, concepts: Concepts, owned: Mapping[str, Owned], group: Tensor, config: Config
) -> dict[str, Related]:
    """Relate every kind of units with the frequencies, and the latents with those of the other seed."""
    frequency = known_frequencies(bench, config.frequencies)
    if frequency is None or len(concepts.numbers) < MIN_CLASSES:
        return {}
    here, kind = concepts.numbers, group[concepts.numbers]
    found = {who: Related.of(one, frequency[here], kind, config.seed) for who, one in owned.items()}
    if config.frequencies is None and isinstance(bench.inputs, ConceptInputs):
        other = torch.from_numpy(World(1 - bench.inputs.world.seed % 2).frequencies)
        found[OTHER_SEED] = Related.of(owned[LATENTS], other[here], kind, config.seed)
    return found


def _figures(who: str, grouped: Grouped, groups: Sequence[str], config: Config) -> dict[str, float]:
    n, (labelled, texts, both) = len(grouped.by_label), grouped.counts(len(groups))
    found = {
        f"{who}, with a group by label": sum(labelled) / n,
        f"{who}, with a group by text": sum(texts) / n,
        f"{who}, with one by both": sum(both) / n,
    }
    for group, *counts in zip(groups, labelled, texts, both, strict=True):
        for how, count in zip(("by label", "by text", "by both"), counts, strict=True):
            found[f"{who}, {group} {how}"] = count / n
    if not grouped.both.any():
        return found
    agreement, chance = grouped.agreement(config.seed)
    return found | agreement.figures(f"{who}, agreement") | {f"{who}, agreement by chance": chance}


def _rows(
    sets: Mapping[str, Units],
    grouped: Mapping[str, Grouped],
    groups: Sequence[str],
    space: JointSpace,
    concepts: Concepts,
    owned: Owned,
) -> list[dict[str, Any]]:
    """Return the classes with their latents, and the latents' groups by both."""
    words = space.words.names
    name = lambda number: groups[number] if number >= 0 else ""  # noqa: E731
    latents = grouped[LATENTS]
    return [
        {
            "class": words[number],
            "latent": unit,
            "auc": round(auc, 4),
            "own": own,
            "latent's group by label": name(int(latents.by_label[unit])),
            "latent's group by text": name(int(latents.by_text[unit])),
        }
        for number, unit, auc, own in zip(
            concepts.numbers.tolist(), owned.unit.tolist(), owned.auc.tolist(), owned.own.tolist(), strict=True
        )
    ]


def _verdict(figures: Mapping[str, float], grouped: Mapping[str, Grouped], related: Mapping[str, Related]) -> str:
    n = {who: len(one.by_label) for who, one in grouped.items()}
    counted = []
    for how in ("a group by label", "a group by text", "the same one by both"):
        name = "one by both" if "both" in how else how
        share = {who: figures[f"{who}, with {name}"] for who in n}
        told = beside(share[LATENTS], n[LATENTS], {who: (share[who], n[who]) for who in CONTROLS})
        counted.append(f"{how}: {share[LATENTS]:.1%} of latents, {told}")
    text = f"With {'; '.join(counted)}."
    if f"{LATENTS}, agreement" in figures:
        agrees, chance = figures[f"{LATENTS}, agreement"], figures[f"{LATENTS}, agreement by chance"]
        beyond = Spread(*(figures[f"{LATENTS}, agreement{end}"] - chance for end in ("", ", low", ", high")))
        with_both = {who: int(one.both.sum()) for who, one in grouped.items()}
        others = {who: (figures[f"{who}, agreement"], with_both[who]) for who in CONTROLS if with_both[who]}
        text += f" Where a latent has both they agree for {agrees:.0%}, {beyond.said} chance ({chance:.0%})"
        text += f" and {beside(agrees, with_both[LATENTS], others)}." if others else "."
    text += too_few(figures)
    return text + (_of_frequency(related) if related else "")


def _of_frequency(related: Mapping[str, Related]) -> str:
    mine, others = related[LATENTS], {who: one for who, one in related.items() if who != LATENTS}
    above = {who: mine.above(one) for who, one in others.items()}

    def told(what: str, of: Mapping[str, Drawn]) -> str:
        called = {who: f"{who.replace(f'{LATENTS}, ', 'the ')} ({of[who].value:+.2f})" for who in others}
        return joined({called[who]: above[who][what].said for who in others})

    slope, ranks = mine.slope.spread, mine.ranks.spread
    often = {"more than": "more often have", "less than": "less often have"}.get(
        slope.said, "are not more likely to have"
    )
    return (
        f" Frequent classes {often} a latent of their own: log odds {_signed(slope)} per decade, "
        f"{told('log odds per decade', {who: one.slope for who, one in others.items()})}; the best latent's AUC goes "
        f"with frequency by a rank correlation of {_signed(ranks)}, "
        f"{told('rank correlation', {who: one.ranks for who, one in others.items()})}."
    )


def _signed(spread: Spread) -> str:
    return f"{spread.mean:+.2f} [{spread.low:+.2f}, {spread.high:+.2f}]"
