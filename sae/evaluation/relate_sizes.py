"""Dictionaries of several sizes: from each to the next larger one, how its latents split, beside controls."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae.errors import ConfigError
from sae.evaluation.chance_picture import chance_picture
from sae.evaluation.members import Member, sparse
from sae.evaluation.metric import Measured
from sae.evaluation.responses import SparseResponses
from sae.evaluation.splitting import Step, chance_bar, splitting_scores
from sae.evaluation.splitting_graph import SplittingGraph
from sae.evaluation.splitting_picture import drawn_edges, splitting_picture
from sae.evaluation.typical import MAIN_SHARE, Factors
from sae.evaluation.universality import shuffled_items

logger = logging.getLogger(__name__)

DICTIONARY = "dictionary"
MAX_DRAWN_CHILDREN = 12
"""Children, the closest first, by which a latent is chosen to be drawn."""


@dataclass(frozen=True)
class Growth:
    """From a dictionary to the next larger one.

    `steps` leads from the smaller to the larger ("dictionary") and to what stands in for the larger, all with one bar:

    - random_directions: as many as there are latents, each firing as often as its latent.
    - shuffled_within_tokens: the larger, its activations dealt out among rows of the same token, so context is lost.
    - shuffled_rows: the larger, its activations dealt out among all rows.
    - same_size: a dictionary of the smaller size and another seed, where there is one; nothing grew.
    """

    small: Member
    large: Member
    steps: Mapping[str, Step]

    @classmethod
    def between(cls, small: Member, large: Member, same_size: Member | None) -> "Growth":
        """Set the bar by random directions, then relate the smaller to the larger and to controls."""
        seeds = [member.dictionary.provenance.get("seed") for member in (small, large)]
        if seeds[0] is not None and seeds[0] == seeds[1]:
            logger.warning(
                "%s and %s were trained with seed %s, so the larger started from all directions that the smaller "
                "started from, and may have inherited that; train each size with a seed of its own.",
                small.name,
                large.name,
                seeds[0],
            )
        parents = sparse(small.units)
        bar = chance_bar(Step.between(parents, sparse(large.random_directions(1))))
        others = {DICTIONARY: sparse(large.units), **_controls(large)}
        if same_size is not None:
            others["same_size"] = sparse(same_size.units)
        return cls(small, large, {name: Step.between(parents, other, bar) for name, other in others.items()})

    @property
    def bar(self) -> float:
        """Masked cosine above which a latent leads to another."""
        return self.steps[DICTIONARY].bar

    @property
    def scores(self) -> tuple[list[Measured], dict[str, list[Measured]]]:
        """Metrics of the larger dictionary, and of each control."""
        own, *controls = self.steps
        return splitting_scores(self.steps[own]), {name: splitting_scores(self.steps[name]) for name in controls}


def growths(members: Sequence[Member]) -> Iterator[list[Growth]]:
    """Yield, for each subject with dictionaries of several sizes, how each size grows into the next."""
    for subject in dict.fromkeys(member.subject for member in members):
        of_size: dict[int, list[Member]] = {}
        for member in members:
            if member.subject == subject:
                of_size.setdefault(member.dictionary.d_sae, []).append(member)
        if len(of_size) > 1:
            levels = [of_size[size] for size in sorted(of_size)]
            yield [
                Growth.between(small, large, other[0] if other else None)
                for (small, *other), (large, *_) in itertools.pairwise(levels)
            ]


def _controls(large: Member) -> dict[str, SparseResponses]:
    own, sample = sparse(large.units), large.units.sample
    controls = {"random_directions": sparse(large.random_directions(0))}
    if sample.rows.token is not None:
        group = 2 * sample.rows.token.long() + sample.match
        controls["shuffled_within_tokens"] = shuffled_items(own, group, large.seed)
    return controls | {"shuffled_rows": shuffled_items(own, sample.match, large.seed)}


def graph_of(steps: Sequence[Growth]) -> SplittingGraph:
    """Return the graph over all sizes."""
    levels = [steps[0].small, *(step.large for step in steps)]
    names = [f"{level.dictionary.d_sae:,} latents" for level in levels]
    return SplittingGraph.of(names, [step.steps[DICTIONARY] for step in steps])


def write_growths(steps: Sequence[Growth], factors: Factors, out: Path, root: int | None = None) -> None:
    """Save the graph over all sizes, draw each step beside its controls, and one latent that splits if any does.

    Args:
        steps: from the smallest dictionary to the largest.
        factors: of the rows, to name tokens and contexts in the picture.
        out: path without suffix: `.json` is the graph, `.png`, `.pdf` and `.csv` the latent, those with `-chance` the
            controls.
        root: latent of the smallest dictionary to draw; chosen by `telling_root` if None.

    Raises:
        ConfigError: the smallest dictionary has no latent `root`.
    """
    graph, levels = graph_of(steps), [steps[0].small, *(step.large for step in steps)]
    about = "dictionaries " + ", ".join(level.dictionary.hash[:10] for level in levels)
    graph.save(out.with_suffix(".json"))
    titled = {f"{a} to {b}": step.steps for (a, b), step in zip(itertools.pairwise(graph.names), steps, strict=True)}
    chance_picture(titled, out.with_name(f"{out.name}-chance"), about)
    if root is not None and not 0 <= root < len(graph.rates[0]):
        raise ConfigError(f"root: no latent {root}; {graph.names[0]} are numbered 0 to {len(graph.rates[0]) - 1}.")
    responses = [sparse(level.units) for level in levels]
    latent = telling_root(graph, responses, factors) if root is None else root
    if latent is None or not graph.children(latent):
        return
    nodes = {node for edge in drawn_edges(graph, (0, latent))[0] for node in edge[:2]}
    shares = {node: factors.shares(responses[node[0]], node[1]) for node in nodes}
    portraits = {node: factors.portrait(own, shares[0, latent]) for node, own in shares.items()}
    if levels[0].units.sample.rows.token is None:
        portraits[0, latent] = factors.portrait(shares[0, latent], factors.everywhere)
    splitting_picture(graph, (0, latent), portraits, out, about)


def telling_root(graph: SplittingGraph, responses: Sequence[SparseResponses], factors: Factors) -> int | None:
    """Return the latent of the smallest dictionary whose children of the same token tell its contexts apart best.

    That is, stand for the most contexts of one family, by how much these set them apart. Latents that are active on
    one token mainly come first. None where nothing splits.
    """
    best, found = (False, 0, 0.0), None
    for latent in (graph.n_children() >= 2).nonzero()[:, 0].tolist():
        own = factors.shares(responses[0], latent)
        tokens = factors.portrait(own, own).tokens
        portraits = (
            factors.portrait(factors.shares(responses[1], child), own)
            for child, _ in graph.children(latent)[:MAX_DRAWN_CHILDREN]
        )
        families: dict[str, dict[str, float]] = {}
        for portrait in portraits:
            if portrait.context and portrait.tokens == tokens:
                rises = families.setdefault(portrait.family, {})
                rises[portrait.context] = max(rises.get(portrait.context, 0.0), portrait.rise)
        n_told, told = max(((len(rises), sum(rises.values())) for rises in families.values()), default=(0, 0.0))
        rank = (factors.main_share(own) >= MAIN_SHARE, n_told, told)
        if found is None or rank > best:
            best, found = rank, latent
    return found
