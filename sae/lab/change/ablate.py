"""Take a concept's latent out of the subject: does that concept's score fall, and no other's?

The latent of a concept is chosen on one half of the labelled sample and removed on the other, with the dictionary's
error and all other latents kept. Beside it stand a difference of means, a linear probe, the best single neuron and a
random latent, each removed in the same way and to the same degrees, and compared where they cost other concepts as much
accuracy as the latent does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae import log
from sae.errors import ConfigError
from sae.evaluation.meanings import related_labels
from sae.evaluation.pictures import style
from sae.lab.change.interventions import Change
from sae.lab.change.panel import Panel, open_panel, panel_codes
from sae.lab.change.rivals import METHODS, RIVALS, Candidates
from sae.lab.finding import Finding, Picture
from sae.lab.workbench import Workbench, WorkbenchConfig

COST = "accuracy others lose"
OFF_TARGET_QUANTILE, TIMES = 0.95, 2.0
"""A removal is selective if the concept's own drop is at least twice the 95th percentile of all others' drops."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab ablate`."""

    shares: tuple[float, ...] = (0.5, 1.0, 2.0)
    """How much is removed: 1 takes everything out, 2 turns it round. Latents are judged at 1, which must be there."""
    per_concept: int = 8
    """Images of each concept to score on, at most."""
    n_examples: int = 32
    """Texts to score on, of a language model."""
    families: tuple[str, ...] = ()
    """Families of labels to ablate, of a language model, such as role or word; all of them if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 1.0 not in self.shares or min(self.shares) <= 0 or list(self.shares) != sorted(set(self.shares)):
            raise ConfigError(f"shares: must rise from above 0 and contain 1, got {self.shares}.")
        if min(self.per_concept, self.n_examples) < 1:
            raise ConfigError("per_concept, n_examples: must be at least 1.")


@dataclass(frozen=True)
class Removal:
    """What removing the part of each concept did, by one method and to one degree.

    Attributes:
        method, share: what was removed, and how much of it.
        own: by how much each concept's score falls when its own part is removed; nan where it has no part.
        others: the 95th percentile of the falls of the other concepts' scores.
        own_accuracy: as `own`, of accuracy.
        cost: the accuracy that the other concepts lose on average; one that gains counts as losing nothing, so that
            gains of some do not hide what is done to others.
    """

    method: str
    share: float
    own: Float[Tensor, " concepts"]
    others: Float[Tensor, " concepts"]
    own_accuracy: Float[Tensor, " concepts"]
    cost: Float[Tensor, " concepts"]

    @property
    def selective(self) -> Bool[Tensor, " concepts"]:
        """Whether a concept falls, and at least twice as much as all but a twentieth of the others."""
        return (self.own > 0) & (self.own >= TIMES * self.others)

    def row(self) -> dict[str, Any]:
        """Return means over concepts, of which those without a part fall by nothing and are not selective."""
        mean = lambda values: float(values.nan_to_num(0).mean())  # noqa: E731
        return {
            "method": self.method,
            "share removed": self.share,
            "selective": mean(self.selective.double()),
            "own fall": mean(self.own),
            "others' 95th percentile": mean(self.others),
            "own fall of accuracy": mean(self.own_accuracy),
            COST: mean(self.cost),
        }


def removals(
    panel: Panel,
    candidates: Candidates,
    method: str,
    shares: Sequence[float],
    related: Bool[Tensor, "concepts concepts"] | None = None,
) -> list[Removal]:
    """Remove the part of every concept of a panel by one method, to several degrees.

    Args:
        panel: held-out answers.
        candidates: parts chosen on the other half.
        method: one of `METHODS`.
        shares: degrees.
        related: concepts that are not "others" of each; itself alone if not given.
    """
    n = len(panel.names)
    codes = panel_codes(panel, candidates.bench.dictionary)
    found = torch.full((len(shares), 4, n), torch.nan, dtype=torch.float64)
    related = torch.eye(n, dtype=torch.bool) if related is None else related
    present = panel.member.any(0)
    for concept, name in enumerate(log.track(panel.names, f"removing: {method}")):
        if candidates.label(name) is None or not present[concept]:
            continue
        parts = candidates.parts(method, name, codes)
        for number, share in enumerate(shares):
            drop = panel.by_concept(panel.clean - panel.changed(parts, Change("remove", share)), without=concept)
            off = drop[~related[concept] & drop.isfinite().all(1)]
            if len(off):
                others = off[:, 0].quantile(OFF_TARGET_QUANTILE)
                values = (drop[concept, 0], others, drop[concept, 1], off[:, 1].clamp(min=0).mean())
                found[number, :, concept] = torch.stack(values)
    return [Removal(method, share, *values) for share, values in zip(shares, found, strict=True)]


def share_at_cost(tried: Sequence[Removal], cost: float) -> float:
    """Return how much a method has to remove to cost the other concepts' accuracy as much as `cost`.

    Interpolated between the degrees tried, from nothing removed, which costs nothing; where none costs as much, the
    largest degree.
    """
    points = [(0.0, 0.0), *((one.row()[COST], one.share) for one in tried)]
    for (low, less), (high, more) in pairwise(points):
        if high >= cost:
            return less + (cost - low) / (high - low) * (more - less) if high > low else more
    return points[-1][1]


def run(config: Config) -> Finding:
    """Remove every concept's part by every method."""
    bench = Workbench.open(config)
    panel = open_panel(bench, config.per_concept, config.n_examples)
    images = bench.subject.kind == "clip"
    family = bench.inputs.classes.family if images else None  # type: ignore[attr-defined]
    related, matched = None, open_panel(bench, config.per_concept, config.n_examples, match=True)
    if not images:
        panel, table = panel.of_families(config.families), bench.sample.table
        chosen = [table.names.index(name) for name in panel.names]
        related = related_labels(table, bench.inputs)[chosen][:, chosen]
    candidates = Candidates(bench, family, matched)
    found = {method: removals(panel, candidates, method, config.shares, related) for method in METHODS}
    cost = _whole(found).row()[COST]
    equal = {
        method: removals(panel, candidates, method, [share_at_cost(found[method], cost)], related)[0]
        for method in RIVALS
    }
    score = "probability of the right class" if images else "log-probability of the next token"
    return finding(panel, found, equal, bench.about, score)


def finding(
    panel: Panel,
    found: Mapping[str, Sequence[Removal]],
    equal: Mapping[str, Removal],
    about: Mapping[str, Any],
    score: str,
) -> Finding:
    """Return the finding of what every method's removals did.

    Args:
        panel: the answers.
        found: by method, to every degree.
        equal: of every control, to the degree that costs others' accuracy what removing the latent does.
        about: hashes of what it was found on.
        score: what the score is.
    """
    whole, by_effect = _whole(found).row(), _whole(found, "latent by effect").row()
    figures = {
        "concepts": len(panel.names),
        "of them too rare to choose for": float(_whole(found).own.isnan().sum()),
        "items": len(panel.member),
        "clean accuracy": float(panel.clean[:, 1].mean()),
        COST: whole[COST],
        "selective: latent": whole["selective"],
        "own fall: latent": whole["own fall"],
        "selective: latent by effect": by_effect["selective"],
        "own fall: latent by effect": by_effect["own fall"],
    }
    for method, one in equal.items():
        figures[f"selective: {method}"], figures[f"own fall: {method}"] = one.row()["selective"], one.row()["own fall"]
    figures |= {f"selective, all removed: {name}": _whole(found, name).row()["selective"] for name in equal}
    listed = ", ".join(
        f"{name} {figures[f'selective: {name}']:.0%}, {figures[f'own fall: {name}']:.3f}" for name in equal
    )
    better = [name for name in equal if figures[f"selective: {name}"] >= whole["selective"]]
    verdict = (
        f"Removing a concept's latent lowers its score, and at least twice as much as 95 % of the others', for "
        f"{whole['selective']:.0%} of {len(panel.names)} concepts ({by_effect['selective']:.0%} with the latent chosen "
        f"by effect), by {whole['own fall']:.3f} on average; controls that cost the others as much accuracy "
        f"({whole[COST]:.3%}): {listed}."
    ) + (f" As selective: {' and '.join(better)}." if better else " No control is as selective.")
    rows = [one.row() | {"at": "a given share"} for tried in found.values() for one in tried]
    rows += [one.row() | {"at": "the latent's cost"} for one in equal.values()]
    return Finding("ablate", about, figures, rows, verdict, {"lab-ablate": _picture(panel, found, score)})


def _whole(found: Mapping[str, Sequence[Removal]], method: str = "latent") -> Removal:
    return next(one for one in found[method] if one.share == 1.0)


def _picture(panel: Panel, found: Mapping[str, Sequence[Removal]], score: str) -> Picture:
    whole = _whole(found)
    rows = [
        {"concept": name, "own": own, "others": others}
        for name, own, others in zip(panel.names, whole.own.tolist(), whole.others.tolist(), strict=True)
    ]

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 4.3), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        selective = whole.selective
        for kept, colour, label in ((selective, style(0)["color"], "selective"), (~selective, "0.6", "not")):
            left.scatter(
                whole.others[kept], whole.own[kept], s=14, alpha=0.8, linewidths=0, color=colour,
                label=f"{label} ({int(kept.sum())})",
            )  # fmt: skip
        high = float(whole.others.nan_to_num(0).max()) * 1.05 + 1e-6
        left.plot([0, high], [0, TIMES * high], color="0.6", linewidth=0.8, zorder=0)
        left.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        left.set(xlabel="95th percentile of the other concepts' falls", ylabel=f"fall of its own {score}")
        left.set_title("each concept, its latent removed", fontsize=9, loc="left")
        left.legend(frameon=False, fontsize=8)
        for number, (method, removals_of) in enumerate(found.items()):
            table = [one.row() for one in removals_of]
            right.plot(
                [one[COST] for one in table], [one["selective"] for one in table],
                label=method, linewidth=1.3, markersize=5, **style(number),
            )  # fmt: skip
        right.axvline(whole.row()[COST], color="0.75", linewidth=0.8, zorder=0)
        right.set(xlabel="accuracy that other concepts lose", ylabel="selective share of concepts", ylim=(0, None))
        right.set_xscale("symlog", linthresh=1e-3)
        right.set_xlim(left=-1e-4)
        right.set_title("by how much is removed (markers: shares)", fontsize=9, loc="left")
        right.legend(frameon=False, fontsize=8)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        return figure

    caption = (
        "Above the line a concept falls at least twice as much as all but a twentieth of the others. Right: every "
        "method removed to several degrees; the grey line is what removing the latent costs the others."
    )
    return Picture(draw, rows, caption)
