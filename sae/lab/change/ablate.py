"""Take a concept's latent out of the subject: does that concept's score fall, and no other's?

The latent of a concept is chosen on one half of the labelled sample and removed on the other, with the dictionary's
error and all other latents kept. Beside it stand a difference of means, a linear probe, the best single neuron and a
random latent, each removed in the same way and to the same degrees, and compared where they cost other concepts no more
accuracy than the latent does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sae.errors import ConfigError
from sae.evaluation.meanings import related_labels
from sae.evaluation.pictures import style
from sae.lab.change.panel import Panel, open_panel
from sae.lab.change.removals import COST, NEAR, TIMES, Removal, at_cost, removals
from sae.lab.change.rivals import METHODS, RIVALS, Candidates
from sae.lab.concepts import compared
from sae.lab.finding import Finding, Picture
from sae.lab.workbench import Workbench, WorkbenchConfig


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
    measured = partial(removals, panel, candidates, related=related)
    found = {method: measured(method, config.shares) for method in METHODS}
    cost = _whole(found).row()[COST]
    equal = {
        method: at_cost(lambda share, method=method: measured(method, [share])[0], found[method], cost)
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
        equal: of every control, to the largest degree that costs others no more accuracy than removing the latent does.
        about: hashes of what it was found on.
        score: what the score is.
    """
    latent, by_effect = _whole(found), _whole(found, "latent by effect")
    figures = {
        "concepts": len(panel.names),
        "of them too rare to choose for": float(latent.own.isnan().sum()),
        "of them too rare to choose for by effect": float(by_effect.own.isnan().sum()),
        "items": len(panel.member),
        "clean accuracy": float(panel.clean[:, 1].mean()),
        COST: latent.row()[COST],
    }
    for method, one in {"latent": latent, "latent by effect": by_effect, **equal}.items():
        row = one.row()
        figures |= {f"{name}: {method}": row[name] for name in ("selective", "own fall", COST, "share removed")}
    figures |= {f"selective, all removed: {name}": _whole(found, name).row()["selective"] for name in equal}
    rows = [one.row() | {"at": "a given share"} for tried in found.values() for one in tried]
    rows += [one.row() | {"at": "the latent's cost"} for one in equal.values()]
    pictures = {"lab-ablate": _picture(panel, found, equal, score)}
    return Finding("ablate", about, figures, rows, say(figures, tuple(equal)), pictures)


def say(figures: Mapping[str, float], controls: Sequence[str]) -> str:
    """Return the verdict; a control is said to be cheaper where not even its largest share costs as much."""
    n, whole, cost = int(figures["concepts"]), figures["selective: latent"], figures[COST]
    listed, rivals = [], []
    for name in controls:
        if compared(figures[f"selective: {name}"], whole, n) != "less than":
            rivals.append(name)
        listed.append(f"{name} {figures[f'selective: {name}']:.0%}, {figures[f'own fall: {name}']:.3f}")
        own = figures[f"{COST}: {name}"]
        if own < NEAR * cost:
            listed[-1] += f" (costs them only {own:.3%}, with {figures[f'share removed: {name}']:.2g} of it removed)"
    return (
        f"Removing a concept's latent lowers its score, and at least twice as much as 95 % of the others', for "
        f"{whole:.0%} of {n} concepts ({figures['selective: latent by effect']:.0%} with the "
        f"latent chosen by effect), by {figures['own fall: latent']:.3f} on average; controls, of which as much "
        f"goes as costs the others no more accuracy ({cost:.3%}): {', '.join(listed)}."
    ) + (
        f" No less selective, as far as can be told: {' and '.join(rivals)}."
        if rivals
        else " No control is as selective."
    )


def _whole(found: Mapping[str, Sequence[Removal]], method: str = "latent") -> Removal:
    return next(one for one in found[method] if one.share == 1.0)


def _picture(panel: Panel, found: Mapping[str, Sequence[Removal]], equal: Mapping[str, Removal], score: str) -> Picture:
    whole = _whole(found)
    rows = [
        {"concept": name, "own": own, "others": others}
        for name, own, others in zip(panel.names, whole.own.tolist(), whole.others.tolist(), strict=True)
    ]

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.4, 4.3), layout="constrained")
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
            mine = [*removals_of, *([equal[method]] if method in equal else [])]
            table = [one.row() for one in sorted(mine, key=lambda one: one.share)]
            right.plot(
                [one[COST] for one in table], [one["selective"] for one in table],
                label=method, linewidth=1.3, markersize=5, **style(number),
            )  # fmt: skip
        right.axvline(whole.row()[COST], color="0.75", linewidth=0.8, zorder=0)
        right.set(xlabel="accuracy that other concepts lose", ylabel="selective share of concepts", ylim=(0, None))
        right.set_xscale("symlog", linthresh=1e-3)
        right.set_xlim(left=-1e-4)
        right.set_title("by how much is removed (markers: shares)", fontsize=9, loc="left")
        right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        return figure

    caption = (
        "Above the line a concept falls at least twice as much as all but a twentieth of the others. Right: every "
        "method removed to several degrees; the grey line is what removing the latent costs the others, and each "
        "control was also removed as far as it can be without costing more, though not more than twice over."
    )
    return Picture(draw, rows, caption)
