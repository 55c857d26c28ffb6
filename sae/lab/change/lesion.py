"""Take a concept's latents out one after another until its score is lost, and coarsen latents bit by bit.

How many latents hold a concept, and how exactly they have to hold it. Latents go in the order of their area under the
ROC curve on the half to choose on; beside them go as many random latents, and as many random ones of those that fire on
the concept's own items, which is the stricter control, and, with no dictionary at all, as many raw neurons of the same
hookpoint, the best ones first, set to zero. The dictionary's error is kept throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae import log
from sae.dictionaries.base import Dictionary
from sae.errors import ConfigError
from sae.evaluation.pictures import style
from sae.lab.change.interventions import Change, Parts
from sae.lab.change.panel import Panel, coded_parts, open_panel, panel_codes, summed
from sae.lab.change.rivals import Candidates
from sae.lab.finding import Finding, Picture
from sae.lab.spread import Spread
from sae.lab.workbench import Workbench, WorkbenchConfig

ORDERS = ("best latents", "random latents", "random firing latents", "best neurons")
NEURONS = ORDERS[3]
COARSENED = ("codes", "decoder", "neurons")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab lesion`."""

    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """How many latents are removed, or neurons, of which at most all there are."""
    bits: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    """Precisions of codes, decoder and, for control, of the vectors themselves; a sign takes one bit."""
    per_concept: int = 8
    """Images of each concept to score on, at most."""
    n_examples: int = 16
    """Texts to score on, of a language model."""
    families: tuple[str, ...] = ()
    """Families of labels, of a language model, such as role or word; all of them if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("counts", "bits"):
            values = list(getattr(self, name))
            if not values or values[0] < 1 or values != sorted(set(values)):
                raise ConfigError(f"{name}: must be whole numbers that rise from 1 or more, got {values}.")


@dataclass(frozen=True)
class Lesions:
    """Scores of every concept as its latents go.

    Attributes:
        counts: how many were removed.
        clean: of the untouched subject; nan for concepts without items or without a label.
        left: by order.
        lost: by order, whether the score is at most half of the clean one.
    """

    counts: tuple[int, ...]
    clean: Float[Tensor, " concepts"]
    left: Mapping[str, Float[Tensor, "counts concepts"]]
    lost: Mapping[str, Tensor]

    def needed(self, order: str) -> Float[Tensor, " concepts"]:
        """Return the smallest count at which each concept is lost, infinite where none is."""
        sizes = torch.tensor(self.counts, dtype=torch.float64)[:, None]
        return torch.where(self.lost[order], sizes, torch.inf).amin(0)


def lesions(panel: Panel, candidates: Candidates, counts: Sequence[int]) -> Lesions:
    """Remove more and more latents of every concept of a panel and score that concept's own items."""
    n, bench = len(panel.names), candidates.bench
    left = {order: torch.full((len(counts), n), torch.nan, dtype=torch.float64) for order in ORDERS}
    clean, present = torch.full((n,), torch.nan, dtype=torch.float64), panel.member.any(0)
    for concept, name in enumerate(log.track(panel.names, "lesions")):
        if candidates.label(name) is None or not present[concept]:
            continue
        own = panel.of(concept)
        clean[concept] = own.clean[:, 0].double().mean()
        codes = panel_codes(own, bench.dictionary)
        for order, units in _orders(candidates, name, concept, max(counts), codes.n_fired()).items():
            for number, count in enumerate(counts):
                parts = (
                    _neurons(units[:count], bench.dictionary.d_in)
                    if order == NEURONS
                    else coded_parts(bench.dictionary, codes, units[:count])
                )
                left[order][number, concept] = own.changed(parts, Change("remove"))[:, 0].double().mean()
    lost = {order: panel.halved(clean.expand_as(values), values) for order, values in left.items()}
    return Lesions(tuple(counts), clean, left, lost)


def _orders(candidates: Candidates, name: str, concept: int, n: int, n_fired: Tensor) -> dict[str, list[int]]:
    shuffled = candidates.random(candidates.bench.dictionary.d_sae, concept)
    firing = [latent for latent in shuffled if n_fired[latent] > 0]
    best = candidates.latents(name, min(n, candidates.bench.dictionary.d_sae))
    neurons = candidates.neurons(name, min(n, candidates.bench.dictionary.d_in))
    return dict(zip(ORDERS, (best, shuffled[:n], firing[:n] or shuffled[:1], neurons), strict=True))


def _neurons(units: list[int], d_in: int) -> Parts:
    """Return neurons as parts: coordinates, so that without them they are zero."""
    return Parts(torch.eye(d_in)[units], lambda x: (x[:, units], x.new_ones(len(x), 1)))


def coarsened(values: Float[Tensor, "rows columns"], bits: int, dim: int) -> Float[Tensor, "rows columns"]:
    """Round to evenly spaced levels between zero and the largest size along a dimension, zero among them.

    There are 2^bits - 1 of them where nothing is negative, else 2^(bits - 1) - 1 on each side; one bit for both signs
    leaves zero alone.
    """
    return _rounded(values, values.abs().amax(dim, keepdim=True), bits)


def _rounded(values: Tensor, largest: Tensor, bits: int) -> Tensor:
    levels = 2**bits - 1 if bool((values >= 0).all()) else 2 ** (bits - 1) - 1
    if levels == 0:
        return torch.zeros_like(values)
    step = largest / levels
    return torch.where(step > 0, (values / step).round() * step, values)


@torch.no_grad()
def coarse(panel: Panel, dictionary: Dictionary, what: str, bits: int) -> Float[Tensor, "items measures"]:
    """Return a panel's answers with codes, decoder or neurons at some bits, what they then write in place of it.

    Codes are rounded by the latent's largest one on the panel, decoder rows by their largest coordinate, and neurons,
    which are the vectors themselves without a dictionary, by their largest distance from their mean.
    """
    rows = panel.rows
    if what == "neurons":
        centred = rows - rows.mean(0)
        return panel.moved(coarsened(centred, bits, 0) - centred)
    codes, decoder = panel_codes(panel, dictionary), dictionary.W_dec.float().cpu()
    if what == "decoder":
        return panel.moved(summed(codes, coarsened(decoder, bits, 1) - decoder))
    latent, values = codes.indices.long(), codes.values.float()
    largest = torch.zeros(codes.d_sae).scatter_reduce_(0, latent, values.abs(), "amax")[latent]
    return panel.moved(summed(replace(codes, values=_rounded(values, largest, bits) - values), decoder))


def run(config: Config) -> Finding:
    """Remove latents of every concept, and coarsen them."""
    bench = Workbench.open(config)
    panel = open_panel(bench, config.per_concept, config.n_examples)
    images = bench.subject.kind == "clip"
    panel = panel if images else panel.of_families(config.families)
    candidates = Candidates(bench, bench.inputs.classes.family if images else None)  # type: ignore[attr-defined]
    found = lesions(panel, candidates, config.counts)
    precise = {
        what: torch.stack([panel.by_concept(coarse(panel, bench.dictionary, what, bits))[:, 0] for bits in config.bits])
        for what in log.track(COARSENED, "precision")
    }
    return finding(panel, found, precise, config.bits, bench.about)


def finding(
    panel: Panel,
    found: Lesions,
    precise: Mapping[str, Float[Tensor, "bits concepts"]],
    bits: Sequence[int],
    about: Mapping[str, Any],
) -> Finding:
    """Return the finding of lesions and of precision."""
    n, clean = len(panel.names), panel.by_concept(panel.clean)[:, 0]
    rows = [
        {"what": order, "size": count, "concepts lost": float(found.lost[order][number].double().mean()),
         "mean score": float(found.left[order][number].nanmean())}
        for order in ORDERS for number, count in enumerate(found.counts)
    ]  # fmt: skip
    lost = {what: panel.halved(clean.expand_as(values), values) for what, values in precise.items()}
    rows += [
        {"what": f"{what} at bits", "size": size, "concepts lost": float(lost[what][number].double().mean()),
         "mean score": float(precise[what][number].nanmean())}
        for what in precise for number, size in enumerate(bits)
    ]  # fmt: skip
    figures: dict[str, float] = {
        "concepts": n,
        "of them too rare to choose for": float(found.clean.isnan().sum()),
        "clean score": float(found.clean.nanmean()),
    }
    medians = {order: float(found.needed(order).sort().values[(n - 1) // 2]) for order in ORDERS}
    for order, median in medians.items():
        lost_share = float(found.needed(order).isfinite().double().mean())
        figures[f"lost within {max(found.counts)}: {order}"] = lost_share
        if median < float("inf"):
            figures[f"median number to lose a concept: {order}"] = median
    for what, values in lost.items():
        kept = [size for size, one in zip(bits, values, strict=True) if one.double().mean() <= 0.05]
        if kept:
            figures[f"bits that keep 95 % of concepts: {what}"] = min(kept)
    sooner = Spread.of(torch.sign(_capped(found, ORDERS[2]) - _capped(found, ORDERS[0])))
    figures |= sooner.figures("lost sooner less later by best latents than by random firing latents")
    best, firing = (_count(medians[order], found) for order in (ORDERS[0], ORDERS[2]))
    neurons = _count(medians[NEURONS], found) + (" (all)" if medians[NEURONS] == panel.x.shape[-1] else "")
    verdict = say(n, best, firing, sooner) + f" Of their best neurons it takes {neurons}."
    return Finding("lesion", about, figures, rows, verdict, {"lab-lesion": _picture(rows, bits)})


def say(n: int, best: str, firing: str, sooner: Spread) -> str:
    """Return the verdict: medians as they are, and the sizes compared concept by concept.

    Args:
        n: concepts.
        best: how many of their best latents lose half of them.
        firing: how many random latents of those that fire do.
        sooner: share of concepts that fewer of the best than of the others lose, less the share that more lose.
    """
    if not sooner.apart_from(0):
        told = "which latents go makes no difference that can be told"
    else:
        told = f"the best ones lose {'more' if sooner.mean > 0 else 'fewer'} of them sooner"
    return (
        f"Half of {n} concepts are lost once {best} of their best latents are gone; of random latents among those that "
        f"fire on their items it takes {firing}: {told} (sooner less later {sooner})."
    )


def _capped(found: Lesions, order: str) -> Float[Tensor, " concepts"]:
    """Return how many it takes, those that are never lost counting as one size more than any."""
    return found.needed(order).clamp(max=max(found.counts) + 1)


def _count(median: float, found: Lesions) -> str:
    return f"{median:.0f}" if median < float("inf") else f"more than {max(found.counts)}"


def _picture(rows: Sequence[Mapping[str, Any]], bits: Sequence[int]) -> Picture:
    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, things, suffix in ((left, ORDERS, ""), (right, COARSENED, " at bits")):
            for number, thing in enumerate(things):
                points = [(row["size"], row["concepts lost"]) for row in rows if row["what"] == thing + suffix]
                axes.plot(*zip(*points, strict=True), label=thing, linewidth=1.4, markersize=5, **style(number))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="0.93", linewidth=0.8)
            axes.legend(frameon=False, fontsize=8)
            axes.set_ylim(-0.02, 1.02)
        left.set_xscale("log", base=2)
        left.set(xlabel="latents or neurons removed", ylabel="share of concepts lost")
        left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        left.set_title("as a concept's latents go", fontsize=9, loc="left")
        right.set(xlabel="bits")
        right.set_xticks(bits)
        right.set_title("as they are written more coarsely", fontsize=9, loc="left")
        return figure

    return Picture(draw, rows, "Lost: the mean score of a concept's held-out items is at most half of the clean one.")
