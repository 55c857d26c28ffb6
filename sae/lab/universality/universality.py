"""Which latents have a counterpart in other networks: other seeds, architectures, sizes, towers, on the same inputs.

The counterpart is the unit of the other network whose activation correlates most on one half of the items. It counts if
its correlation on the other half is above a bar: what the best of as many random directions of that network reach for
19 in 20 of the latents, and the most that any latent reaches once its activations are dealt out to other items. Neurons
and random directions of the first network are held to the same bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae.errors import ConfigError, EvaluationError
from sae.evaluation.labels import best_labels
from sae.evaluation.responses import Responses, SparseResponses
from sae.evaluation.universality import Partners, best_partners, shuffled_items
from sae.lab.concepts import beside
from sae.lab.finding import Finding, Picture
from sae.lab.universality.networks import Network, open_network, share_of
from sae.lab.universality.pictures import Cell, draw_gallery, draw_shares
from sae.lab.workbench import Workbench, WorkbenchConfig

QUANTILE = 0.95
N_DEALS = 5
KINDS = ("latents", "neurons", "random directions")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a search for counterparts."""

    others: tuple[str, ...]
    """Dictionaries of other networks (folders, or builtin:SUBJECT/HOOKPOINT), or their neurons (neurons:HOOKPOINT)."""
    other_stores: tuple[Path, ...]
    """A store for each of the others, in their order, made from the same inputs; or one for all."""
    latents: tuple[int, ...] = ()
    """Show these in the gallery; if empty, those found best, and others drawn at random."""
    n_best: int = 3
    """Latents to show whose counterparts correlate most in all networks."""
    n_typical: int = 5
    """Latents to show that are drawn at random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.others or len(self.other_stores) not in (1, len(self.others)):
            raise ConfigError(
                f"others, other_stores: need one or more dictionaries and a store for each, or one for all; got "
                f"{len(self.others)} and {len(self.other_stores)}."
            )
        if min(self.n_best, self.n_typical) < 0 or not (self.latents or self.n_best + self.n_typical):
            raise ConfigError("n_best, n_typical: at least one latent must be shown.")


@dataclass(frozen=True)
class Counterparts:
    """Counterparts of all units of one kind in one network.

    Attributes:
        partners: chosen on one half, correlated on the other.
        alive: units that fire.
        bar: correlation above which a counterpart counts.
    """

    partners: Partners
    alive: Bool[Tensor, " units"]
    bar: float

    @property
    def found(self) -> Bool[Tensor, " units"]:
        return self.alive & (self.partners.held_out > self.bar)

    @property
    def median(self) -> float:
        return float(self.partners.held_out[self.alive].median())


def bars(own: Responses, network: Network, match: Bool[Tensor, " items"], seed: int) -> tuple[float, float]:
    """Return what units must surpass to have a counterpart: by random directions, and by chance.

    The correlation that 19 in 20 units do not exceed with the network's random directions, and the largest that any
    reaches with its units in `N_DEALS` deals of activations to other items; 0 for units that are dense.
    """
    fires = own.n_fired > 0
    random = best_partners(own, network.controls, match).held_out[fires].quantile(QUANTILE)
    dealt = [0.0]
    if isinstance(own, SparseResponses):
        for number in range(N_DEALS):
            shuffled = shuffled_items(own, match, N_DEALS * seed + number)
            dealt.append(float(best_partners(shuffled, network.responses, match).held_out.max()))
    return max(float(random), 0.0), max(dealt)


def run(config: Config) -> Finding:
    """Look for the counterparts of latents, and of neurons and random directions beside them."""
    bench = Workbench.open(config)
    stores = config.other_stores * (len(config.others) if len(config.other_stores) == 1 else 1)
    networks = [open_network(bench, name, store) for name, store in zip(config.others, stores, strict=True)]
    return finding(bench, networks, config)


def counterparts(bench: Workbench, networks: Sequence[Network]) -> dict[str, list[Counterparts]]:
    """Return, for each kind of unit of the workbench, the counterparts in each network; one bar serves all kinds."""
    own = {"latents": bench.latents, "neurons": bench.neurons, "random directions": bench.random}
    match, found = bench.sample.match, {kind: [] for kind in own}
    for one in networks:
        bar = max(bars(bench.latents.responses, one, match, bench.seed))
        for kind, units in own.items():
            partners = best_partners(units.responses, one.responses, match)
            found[kind].append(Counterparts(partners, units.responses.n_fired > 0, bar))
    return found


def finding(bench: Workbench, networks: Sequence[Network], config: Config) -> Finding:
    """Say in how many networks latents have counterparts, and show some."""
    found = counterparts(bench, networks)
    figures, counted = _figures(bench, networks, found), [one.counted for one in networks]
    shares = _shares(found, counted)
    for kind, of_kind in shares.items():
        figures |= {f"{kind}: in {n} or more of {len(of_kind) - 1}": of_kind[n] for n in range(1, len(of_kind))}
    labels = best_labels(bench.latents)
    names = [bench.sample.table.names[label] if label >= 0 else "" for label in labels.tolist()]
    figures |= _by_family(found["latents"], counted, names)
    shown = _shown(bench, found["latents"], counted, config)
    gallery = _gallery(bench, networks, found["latents"], shown)
    rows = _rows(bench, networks, found["latents"], names)
    chosen = len(shown) if config.latents else config.n_best
    called = [names[latent] + ("" if place < chosen else "\nat random") for place, latent in enumerate(shown)]
    titles = ["the latent itself", *(f"{one.title}\n{one.relation}{_uncounted(one, counted)}" for one in networks)]
    n_found = _n_found(networks, found["latents"])
    of = [f"found in {int(n_found[latent])} of {sum(counted) or len(counted)} networks" for latent in shown]
    cited = [{"latent": latent, "network": title.replace("\n", " "), "unit": cell.unit, "r": cell.r,
              "found": cell.found, "found in": int(n_found[latent])}
             for latent, cells in zip(shown, gallery, strict=True)
             for title, cell in zip(titles, cells, strict=True)]  # fmt: skip
    pictures = {
        "lab-universality": Picture(
            lambda: draw_gallery(titles, called, of, gallery),
            cited,
            _how_shown(config) + " Each cell: where the counterpart fires most, with its number and its correlation r "
            "on held-out items; faded: not above the bar. Another place of the same tower is not counted.",
        ),
        "lab-universality-shares": Picture(
            lambda: draw_shares(shares),
            [
                {"units": kind, "networks": n, "share": share}
                for kind, of in shares.items()
                for n, share in enumerate(of)
            ],
            "Share of units with a counterpart in so many networks or more; it counts above what the best random "
            "directions of that network reach for 19 in 20 latents, and above all that chance reaches.",
        ),
    }
    about = dict(bench.about) | {"others": [one.title.replace("\n", " ") for one in networks]}
    return Finding("universality", about, figures, rows, _verdict(networks, found, shares), pictures)


def _figures(
    bench: Workbench, networks: Sequence[Network], found: Mapping[str, list[Counterparts]]
) -> dict[str, float]:
    figures: dict[str, float] = {"items": float(bench.sample.n_items), "latents": float(bench.latents.alive.sum())}
    for number, one in enumerate(networks):
        title = f"{one.title} ({one.relation})".replace("\n", " ")
        for kind in KINDS:
            of = found[kind][number]
            share = float(of.found[of.alive].double().mean())
            figures |= {f"{title}: {kind}, found": share, f"{title}: {kind}, median r": of.median}
        figures[f"{title}: bar"] = found["latents"][number].bar
        neurons = best_partners(bench.neurons.responses, one.neurons, bench.sample.match)
        figures[f"{title}: neurons with its neurons, median r"] = float(neurons.held_out.median())
    return figures


def _matrix(of_kind: Sequence[Counterparts], counted: Sequence[bool]) -> Bool[Tensor, "networks units"]:
    """Return which units that fire are found in which of the networks that count; in all of them if none counts."""
    chosen = [one for one, counts in zip(of_kind, counted, strict=True) if counts or not any(counted)]
    return torch.stack([one.found[one.alive] for one in chosen])


def _shares(found: Mapping[str, list[Counterparts]], counted: Sequence[bool]) -> dict[str, list[float]]:
    """Return, by kind, the share of units found in 0, 1, ... networks or more."""
    matrices = {kind: _matrix(of_kind, counted) for kind, of_kind in found.items()}
    return {kind: [share_of(one, n) for n in range(len(one) + 1)] for kind, one in matrices.items()}


def _by_family(of_latents: Sequence[Counterparts], counted: Sequence[bool], names: Sequence[str]) -> dict[str, float]:
    """Return the share found in all networks of the latents whose best label is of each family."""
    matrix, alive = _matrix(of_latents, counted), of_latents[0].alive.tolist()
    families = [name.partition("=")[0] for name, fires in zip(names, alive, strict=True) if fires]
    found: dict[str, float] = {}
    for family in sorted({one for one in families if one}):
        mine = torch.tensor([one == family for one in families])
        found[f"best label a {family} ({int(mine.sum())}): in all"] = share_of(matrix[:, mine], len(matrix))
    return found


def _shown(bench: Workbench, of_latents: Sequence[Counterparts], counted: Sequence[bool], config: Config) -> list[int]:
    n = bench.dictionary.d_sae
    for latent in config.latents:
        if not 0 <= latent < n:
            raise EvaluationError(f"latents: no latent {latent}; {bench.dictionary!r} has latents 0 to {n - 1}.")
    if config.latents:
        return list(config.latents)
    alive = of_latents[0].alive.nonzero()[:, 0]
    chosen = [one for one, counts in zip(of_latents, counted, strict=True) if counts or not any(counted)]
    least = torch.stack([one.partners.held_out for one in chosen]).amin(0)[alive]
    best = alive[least.argsort(descending=True)[: config.n_best]].tolist()
    order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(bench.seed))
    drawn = [latent for latent in alive[order].tolist() if latent not in best]
    return best + drawn[: config.n_typical]


def _how_shown(config: Config) -> str:
    if config.latents:
        return "Latents that were asked for."
    return (
        f"The first {config.n_best} latents have the largest smallest correlation over networks; the other "
        f"{config.n_typical} are drawn at random from those that fire."
    )


def _gallery(
    bench: Workbench, networks: Sequence[Network], of_latents: Sequence[Counterparts], shown: Sequence[int]
) -> list[list[Cell]]:
    rows = []
    for latent in shown:
        cells = [Cell.of(bench, bench.latents.responses, latent, 1.0, True)]
        for one, of in zip(networks, of_latents, strict=True):
            unit, r = int(of.partners.partner[latent]), float(of.partners.held_out[latent])
            cells.append(Cell.of(bench, one.responses, unit, r, bool(of.found[latent])))
        rows.append(cells)
    return rows


def _n_found(networks: Sequence[Network], of_latents: Sequence[Counterparts]) -> Int[Tensor, " latents"]:
    """Return in how many of the networks that count each latent is found; of all of them if none counts."""
    counted = torch.tensor([one.counted for one in networks])
    return torch.stack([one.found for one in of_latents])[counted | (not counted.any())].sum(0)


def _uncounted(one: Network, counted: Sequence[bool]) -> str:
    return " (not counted)" if any(counted) and not one.counted else ""


def _rows(
    bench: Workbench, networks: Sequence[Network], of_latents: Sequence[Counterparts], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per latent that fires, found in the most networks first."""
    n_found, counted, rows = _n_found(networks, of_latents), [one.counted for one in networks], []
    for latent in bench.latents.alive.nonzero()[:, 0].tolist():
        row: dict[str, Any] = {"latent": latent, "label": names[latent], "found in": int(n_found[latent])}
        row["of"] = sum(counted) or len(networks)
        for number, (one, of) in enumerate(zip(networks, of_latents, strict=True), 1):
            row[f"{number}: {one.relation}"] = int(of.partners.partner[latent])
            row[f"{number}: r"] = round(float(of.partners.held_out[latent]), 3)
        rows.append(row)
    return sorted(rows, key=lambda row: -row["found in"])


def _verdict(
    networks: Sequence[Network], found: Mapping[str, list[Counterparts]], shares: Mapping[str, Sequence[float]]
) -> str:
    n = {kind: int(of[0].alive.sum()) for kind, of in found.items()}
    of_all, parts = len(shares["latents"]) - 1, []
    for fewest in sorted({1, of_all}, reverse=True):
        share = {kind: of_kind[fewest] for kind, of_kind in shares.items()}
        where = f"{fewest} of {of_all} networks" if fewest == of_all else "at least one"
        parts.append(f"in {where}: {share['latents']:.1%} of latents, {_beside(share, n)}")
    listed = []
    for number, one in enumerate(networks):
        of = found["latents"][number]
        share = {kind: float(each[number].found[each[number].alive].double().mean()) for kind, each in found.items()}
        listed.append(
            f"{one.relation} {share['latents']:.1%} (median r {of.median:.2f}, bar {of.bar:.2f}), {_beside(share, n)}"
        )
    return f"Found {'; '.join(parts)}. Latents by network: {'; '.join(listed)}."


def _beside(share: Mapping[str, float], n: Mapping[str, int]) -> str:
    return beside(share["latents"], n["latents"], {kind: (share[kind], n[kind]) for kind in KINDS[1:]})
