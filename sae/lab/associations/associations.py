"""What a latent weakly fires for: the latent of one class on pictures of the classes that go with it.

Goh et al. 2021 (*Multimodal Neurons*, Distill) found that a person's neuron fires weakly for those who work with them,
and stronger the closer the two are. Here the rates are planted (`inputs.base.Associated`): owners bring their
associates along in a share of their pictures. The unit that detects an owner best is read on pictures of the associate
alone, and its answer is compared with what it says to the associate's kin, classes of the same kind that never go with
the owner. A code of few latents hides weak answers, so latents are read by their pre-activations.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.linear import Directions
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.responses import DenseResponses
from sae.evaluation.sample import MIN_POSITIVES, Sample
from sae.inputs.base import Associated
from sae.lab.associations.picture import picture
from sae.lab.associations.strengths import Pairs, Strengths, alone, class_means, correlation, percent, shares
from sae.lab.finding import Finding, unit_name
from sae.lab.readings import Readings, latents, neurons, random
from sae.lab.words.joint import EXACT, JointSpace
from sae.lab.workbench import Workbench, WorkbenchConfig

LATENTS, SELECTED = "latents", "latents, as selected"


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of the association strengths."""

    associations: Path | None = None
    """JSON of which classes go with which and how often, {"anna": {"ben": 0.3}}; what the inputs know if not given."""
    n_deals: int = 999
    """Draw associates from their kin so often, for what chance gives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_deals < 1:
            raise ConfigError(f"n_deals: must be at least 1, got {self.n_deals}.")


@dataclass(frozen=True)
class Read:
    """The units of owners: which, how well they detect them, and their mean answers to every class, held out."""

    unit: Int[Tensor, " owners"]
    auc: Float[Tensor, " owners"]
    means: Float[Tensor, "owners classes"]


@dataclass(frozen=True)
class Shown:
    """Items that show one class alone, in both halves."""

    sample: Sample
    number: Int[Tensor, " items"]
    kept: Bool[Tensor, " items"]
    n_classes: int

    @classmethod
    def of(cls, bench: Workbench) -> "Shown":
        """Raises:
        EvaluationError: the inputs have no classes.
        """
        sample, classes = bench.sample, getattr(bench.inputs, "classes", None)
        if classes is None or not sample.pooled:
            raise EvaluationError(f"{bench.inputs.describe()}: associations need images of classes.")
        number = torch.from_numpy(sample.labels[classes.family]).long()
        kept = alone(sample, classes.family) & (number >= 0)
        return cls(sample, number, kept, len(sample.label_names[classes.family]))

    @property
    def known(self) -> Bool[Tensor, " classes"]:
        """Classes with enough items in both halves."""
        halves = (self.kept & self.sample.match, self.kept & ~self.sample.match)
        counts = [self.number[half].bincount(minlength=self.n_classes) for half in halves]
        return torch.stack(counts).amin(0) >= MIN_POSITIVES // 2

    def read(self, values: Float[Tensor, "items units"], owners: Int[Tensor, " owners"]) -> Read:
        """Choose the unit that detects each owner best on the half to match on, and read it on the other."""
        match, score = self.kept & self.sample.match, self.kept & ~self.sample.match
        unit = self._auc(values, match, owners).argmax(0)
        chosen = values[:, unit]
        auc = self._auc(chosen, score, owners).diagonal()
        return Read(unit, auc, class_means(chosen[score], self.number[score], self.n_classes))

    def differences(self, owners: Int[Tensor, " owners"]) -> Float[Tensor, "items owners"]:
        """Return how far items lie along the difference of the means with and without each owner."""
        sample, rows = self.sample, self.sample.pooled_rows
        keep = rows & (self.kept & sample.match)[sample.item]
        x, number = sample.x[keep].double(), self.number[sample.item[keep]]
        means = class_means(x, number, self.n_classes).T[owners]
        centre = x.mean(0)
        return Readings("difference", Directions.of((means - centre).float(), centre.float()), sample).of(
            range(len(owners))
        )

    def own(self, values: Float[Tensor, "items owners"], owners: Int[Tensor, " owners"]) -> Read:
        """Read units that belong to their owners already."""
        score = self.kept & ~self.sample.match
        means = class_means(values[score], self.number[score], self.n_classes)
        return Read(torch.arange(len(owners)), self._auc(values, score, owners).diagonal(), means)

    def _auc(self, values: Tensor, keep: Tensor, owners: Tensor) -> Float[Tensor, "units owners"]:
        columns = self.number[keep][:, None] == owners
        held = values[keep]
        return DenseResponses.of(lambda units: held[:, units], len(held), held.shape[1]).auc(columns)


def run(config: Config) -> Finding:
    """Read every owner's unit on what goes with it, for latents and the controls, and by text where there is one."""
    bench = Workbench.open(config)
    shown, pairs = Shown.of(bench), known_pairs(bench, config.associations)
    pairs = pairs.on(shown.known)
    if not pairs.listed():
        raise EvaluationError(
            "associations: no owner has an associate with kin that are shown often enough; take more."
        )
    both = {"": pairs, ", reversed": pairs.reverse} if pairs.reverse.listed() else {"": pairs}
    figures: dict[str, float] = {"owners": len(pairs.owners), "pairs": len(pairs.listed())}
    rows: list[dict[str, Any]] = []
    reads: dict[str, Read] = {}
    for way, these in both.items():
        found = read_all(bench, shown, these, config.seed)
        for who, read in found.items():
            figures |= _figures(f"{who}{way}", read, these, config)
            rows += _rows(f"{who}{way}", read, these)
        reads = reads or found
    for who, read in by_text(bench, pairs, reads[LATENTS].unit).items():
        figures |= _figures(who, read, pairs, config)
        rows += _rows(who, read, pairs)
    shown_picture = picture(figures, pairs, shares(reads[LATENTS].means, pairs))
    verdict = _verdict(figures, pairs)
    return Finding("associations", bench.about, figures, rows, verdict, {"lab-associations": shown_picture})


def known_pairs(bench: Workbench, path: Path | None) -> Pairs:
    """Return which classes go with which, from a file or from what the inputs know.

    Raises:
        EvaluationError: the inputs know nothing of it, or the file is no mapping of names to rates.
    """
    inputs: Any = bench.inputs
    names = inputs.label_names[inputs.classes.family]
    knowing = isinstance(inputs, Associated)
    if path is None and not knowing:
        raise EvaluationError(
            f"{inputs.describe()}: these inputs do not know what goes with what; give --associations FILE, a JSON "
            'such as {"anna": {"ben": 0.3}}.'
        )
    kin = inputs.kin() if knowing else {}
    if path is None:
        return Pairs.of(names, inputs.associations(), kin)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        rates = {owner: {other: float(rate) for other, rate in found.items()} for owner, found in given.items()}
    except (OSError, ValueError, AttributeError, TypeError) as cause:
        raise EvaluationError(
            f'associations: {path}: not a JSON such as {{"anna": {{"ben": 0.3}}}}: {cause}'
        ) from cause
    return Pairs.of(names, rates, kin)


def read_all(bench: Workbench, shown: Shown, pairs: Pairs, seed: int) -> dict[str, Read]:
    """Return the owners' latents and the same of every control."""
    sample, owners = bench.sample, pairs.owners
    sets = {
        LATENTS: latents(bench),
        "neurons": neurons(bench),
        "random directions": random(sample, bench.dictionary.d_sae, seed),
    }
    found = {name: shown.read(everything(readings), owners) for name, readings in sets.items()}
    selected = torch.cat([block for _, block in bench.latents.responses.blocks()], 1)
    found[SELECTED] = shown.read(selected, owners)
    found["difference of means"] = shown.own(shown.differences(owners), owners)
    return found


def everything(readings: Readings) -> Float[Tensor, "items units"]:
    """Return the pre-activations of all units."""
    return torch.cat([block for _, block in readings.blocks()], 1)


def by_text(bench: Workbench, pairs: Pairs, unit: Int[Tensor, " owners"]) -> dict[str, Read]:
    """Return the cosines of the owners' latents, and of their names, with all names; none outside of the joint space.

    The names alone say whether the subject's text tower holds the association at all.
    """
    at = bench.dictionary.provenance.get("hookpoint")
    if bench.subject.kind != "clip" or at != EXACT or bench.dictionary.is_transcoder:
        return {}
    space = JointSpace.of(bench)
    (places,) = space.places([bench.latents])
    words, unknown = space.words.directions, torch.full((len(unit),), torch.nan)
    of_latents = torch.nn.functional.normalize(places[unit], dim=1) @ words.T
    return {
        "latents, by text": Read(unit, unknown, of_latents.double()),
        "names, by text": Read(pairs.owners, unknown, (words[pairs.owners] @ words.T).double()),
    }


def _figures(who: str, read: Read, pairs: Pairs, config: Config) -> dict[str, float]:
    strengths = Strengths.of(read.means, pairs)
    found = {f"{who}, AUC for the owner": float(read.auc.mean())} if read.auc.isfinite().all() else {}
    for rate in reversed(pairs.rates):
        keep, at = strengths.rate == rate, f"{who}, {percent(rate)}"
        found[f"{at}, share"] = float(strengths.share[keep].mean())
        found[f"{at}, share of kin"] = float(strengths.kin[keep].mean())
        found |= strengths.gain(rate, config.seed).figures(f"{at}, above kin")
        found |= strengths.ranks(rate, config.seed).figures(f"{at}, rank in kin")
    together, chance = correlation(read.means, pairs, config.n_deals, config.seed)
    return found | together.figures(f"{who}, correlation") | {f"{who}, correlation, dealt": chance}


def _rows(who: str, read: Read, pairs: Pairs) -> list[dict[str, Any]]:
    strengths = Strengths.of(read.means, pairs)
    listed = zip(pairs.listed(), strengths.share.tolist(), strengths.kin.tolist(), strengths.rank.tolist(), strict=True)
    return [
        {
            "units": who,
            "owner": pairs.names[int(pairs.owners[place])],
            "associate": pairs.names[other],
            "rate": float(pairs.rate[place, other]),
            "unit": unit_name(who, int(read.unit[place])),
            "share": round(share, 4),
            "share_of_kin": round(kin, 4),
            "rank_in_kin": round(rank, 4),
        }
        for (place, other, _), share, kin, rank in listed
    ]


def _verdict(figures: Mapping[str, float], pairs: Pairs) -> str:
    told = []
    for rate in pairs.rates:
        name = f"{LATENTS}, {percent(rate)}, above kin"
        low, high = figures[f"{name}, low"], figures[f"{name}, high"]
        told.append(
            f"{figures[name]:+.1%} [{low:+.1%}, {high:+.1%}] of its own response above their kin on what "
            f"goes with it at {percent(rate)}" + ("" if low > 0 else " (not distinguishable from none)")
        )
    rivals = [name.removesuffix(", correlation") for name in figures if name.endswith(", correlation")]
    rivals = [name for name in rivals if name != LATENTS and not name.endswith(("reversed", "by text"))]
    better = [
        name for name in rivals if figures[f"{name}, correlation, high"] >= figures[f"{LATENTS}, correlation, low"]
    ]
    listed = ", ".join(f"{name} {figures[f'{name}, correlation']:.2f}" for name in rivals)
    beyond = figures[f"{LATENTS}, correlation, low"] > figures[f"{LATENTS}, correlation, dealt"]
    return (
        f"The latent that detects a class best answers with {'; '.join(told)}; its ranks agree with the planted "
        f"rates by {figures[f'{LATENTS}, correlation']:.2f}, {'beyond' if beyond else 'not beyond'} what "
        f"dealt associates reach ({figures[f'{LATENTS}, correlation, dealt']:.2f}); controls: {listed}."
        + (f" Not distinguishable from latents: {', '.join(better)}." if better else "")
    )
