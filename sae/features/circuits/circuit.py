"""A latent's circuit, first step: what drives it in earlier dictionaries, what it does in later ones and at the end.

On examples in which latent j fires, spread over its quantiles, with F its firings in them, an edge from i to T has the

    attribution   1/F sum_q z_i(q) <W_dec[i], dT/dx(q)>            the first-order effect (see `attribution.py`)
    ablation      1/F (T - T without z_i W_dec[i])                 the true effect (see `confirmation.py`)

where T, for an upstream edge i -> j, is the pre-activation of j, summed over where j fires. A downstream edge j -> k
measures the pre-activation of k, summed over where k fires; a latent that j keeps silent is therefore not seen. An edge
to an output measures the centred logit of a next token, summed over where j fires, or the cosine of the image with a
word, summed over the images (then F counts those). Pre-activations are what the encoder's linear part gives, so no
threshold cuts them off; they are in the units of the target's activation.

An edge stands for every path through the subject between its two ends, those through the hookpoints of other
dictionaries of the same circuit included, and nothing of the subject is replaced. In a graph of a replacement model
edges will stop at the next dictionary; nodes and edges are kept as plain lists for that reason, between any two nodes.

An edge is confirmed if its ablation has the attribution's sign, at least half of its size, and exceeds 95 % of the
effects of ablating other latents, the control: latents of the source's dictionary that are not drawn and that could do
as much. Upstream these are the nearest in reach, sum_q |z_c(q)| |W_dec[c]| |dT/dx(q)|, which is the attribution they
would have if they pointed along the gradient; downstream those nearest in sum_q |z_c(q)| |W_dec[c]| where j fires.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import CatalogError
from sae.features.cards import Card, rounded
from sae.features.circuits.attribution import (
    Activity,
    Member,
    attributions,
    differentiating,
    effects,
    gradients,
    observe,
    only_modality,
    tangent_of,
    tangents,
)
from sae.features.circuits.confirmation import Targets, ablated, confirmed, peers, threshold
from sae.features.circuits.glossary import Glossary
from sae.features.circuits.graph import CENTRE, DOWNSTREAM, OUTPUT, UPSTREAM, Circuit, CircuitConfig, Edge, Node
from sae.features.circuits.outputs import outputs_of
from sae.features.live.loaded import Loaded
from sae.features.removal import stacked
from sae.tensors import Batch


@dataclass(frozen=True)
class Run:
    """A latent on its examples.

    Attributes:
        latent: which one.
        batch: the examples.
        seen: what every dictionary does on them, by name.
        own: the latent's dictionary among these.
    """

    latent: int
    batch: Batch
    seen: Mapping[str, Activity]
    own: Activity

    @property
    def n_firings(self) -> int:
        """Positions at which it fires."""
        return int((self.own.grid(self.latent) > 0).sum())


class Circuits:
    """Traces circuits of the latents of one catalog.

    Args:
        loaded: the catalog with its subject, and dictionaries at other hookpoints, which may be transcoders.
        config: how much to look at.

    Raises:
        CatalogError: one of the dictionaries is of another subject, works on several hookpoints, or lies neither before
            nor after the catalog's.
    """

    def __init__(self, loaded: Loaded, config: CircuitConfig | None = None) -> None:
        self.loaded, self.config = loaded, config or CircuitConfig()
        self.own = Member.of(loaded.catalog.about.dictionary["source"], loaded.dictionary, loaded.subject)
        self.upstream: list[Member] = []
        self.downstream: list[Member] = []
        for name, dictionary in loaded.others.items():
            self._side(Member.of(name, dictionary, loaded.subject))
        self.members = [self.own, *self.upstream, *self.downstream]
        self.outputs = outputs_of(loaded.subject, loaded.inputs, self.own.writes.hookpoint)
        self.glossary = Glossary(loaded.subject, loaded.inputs, self.members, self.outputs)

    def trace(self, latent: int) -> Circuit:
        """Return the circuit of a latent.

        Raises:
            CatalogError: there is no such latent, or it fires on none of the examples of its card.
        """
        started, card = time.monotonic(), self.loaded.catalog[latent]
        batch = only_modality(self._examples(card), self.own.reads)
        seen = observe(self.loaded.subject, batch, self.members)
        run = Run(latent, batch, seen, seen[self.own.name])
        if not run.n_firings:
            raise CatalogError(f"latent {latent}: fires on none of the {len(batch)} examples taken from its card.")
        centre = self._node(CENTRE, self.own, latent, card.title)
        graph = self._upstream(run, centre) + self._downstream(run, centre)
        grid = run.own.grid(latent)
        return Circuit(
            latent=latent,
            title=card.title,
            n_examples=len(batch),
            n_firings=run.n_firings,
            activation=_rounded(float(grid[grid > 0].mean())),
            nodes=[centre, *(node for node, _ in graph)],
            edges=[edge for _, edge in graph],
            agreement=_agreement(graph),
            seconds=round(time.monotonic() - started, 2),
        )

    def _side(self, other: Member) -> None:
        order = {name: number for number, name in enumerate(self.loaded.subject.hookpoints())}
        own, reads, writes = self.own, other.reads, other.writes.hookpoint
        towers = {name.partition(".")[0] for name in (own.reads, reads)}
        if self.loaded.subject.kind == "clip" and len(towers) > 1:
            raise CatalogError(f"{other.name}: reads {reads}, in another tower than {own.reads}; nothing flows over.")
        if order[writes] < order[own.reads]:
            self.upstream.append(other)
        elif order[own.writes.hookpoint] < order[reads]:
            self.downstream.append(other)
        else:
            there = reads if reads == writes else f"{reads} and writes {writes}"
            raise CatalogError(
                f"{other.name}: reads {there}, the catalog's dictionary {own.reads}; a circuit is between hookpoints "
                f"that come one after the other. In order they are {', '.join(order)}."
            )

    def _examples(self, card: Card) -> Batch:
        """Take examples of a card from weak to strong, evenly spread, none twice."""
        shown = card.sections.get("examples", {})
        parts = [part["examples"] for part in shown.get("quantiles", ())] or [shown.get("top", ())[::-1]]
        numbers = list(dict.fromkeys(ref["example"] for part in parts for ref in part))
        if not numbers:
            raise CatalogError(f"latent {card.index}: its card shows no example on which it fires.")
        places = np.linspace(0, len(numbers) - 1, min(self.config.n_examples, len(numbers))).round().astype(int)
        return stacked([self.loaded.inputs.batch(numbers[i], numbers[i] + 1) for i in places.tolist()])

    def _upstream(self, run: Run, centre: Node) -> list[tuple[Node, Edge]]:
        """Return the latents of every earlier dictionary that drive the latent most, each with its edge."""
        hookpoints = list(dict.fromkeys(member.writes.hookpoint for member in self.upstream))
        if not hookpoints:
            return []
        found = gradients(self.loaded.subject, run.batch, run.own, run.latent, hookpoints)
        parts = [self._drivers(run, member, found[member.writes.hookpoint], centre) for member in self.upstream]
        return [pair for part in parts for pair in part]

    def _drivers(
        self, run: Run, member: Member, gradient: Float[Tensor, "example pos d_out"], centre: Node
    ) -> list[tuple[Node, Edge]]:
        subject, config = self.loaded.subject, self.config
        attributed, reach = attributions(run.seen[member.name], gradient)
        attributed = attributed / run.n_firings
        drawn = _strongest(attributed, config.n_latents)
        controls = peers(reach, drawn, config.n_controls)
        targets = Targets({self.own.name: run.own}, {self.own.name: [run.latent]})
        removed = [*drawn, *controls]
        ablation = ablated(subject, run.batch, run.seen[member.name], removed, targets, config.batch_examples)
        before, after = (effect[:, 0] / run.n_firings for effect in ablation)
        limit = float(threshold(before[len(drawn) :, None])[0])
        graph = []
        for i, latent in enumerate(drawn):
            node = self._node(UPSTREAM, member, latent)
            edge = _edge(node, centre, float(attributed[latent]), float(before[i]), float(after[i]), limit)
            graph.append((node, edge))
        return graph

    def _downstream(self, run: Run, centre: Node) -> list[tuple[Node, Edge]]:
        """Return what the latent does most in every later dictionary and at the end, each with its edge."""
        chosen, attributed = self._first_order(run)
        if not chosen:
            return []
        config, own, fires = self.config, run.own, run.own.grid(run.latent) > 0
        norms = own.member.dictionary.W_dec.detach().float().cpu().norm(dim=1)
        reach = own.total(own.strength.abs() * fires[own.places]) * norms
        controls = peers(reach, [run.latent], config.n_controls)
        latents = {name: picked for name, picked in chosen.items() if name is not None}
        outputs = None if self.outputs is None else (self.outputs, self.outputs.places(fires))
        targets = Targets(run.seen, latents, chosen.get(None, ()), outputs)
        removed = [run.latent, *controls]
        ablation = ablated(self.loaded.subject, run.batch, own, removed, targets, config.batch_examples)
        per = [self._count(run, name) for name, picked in chosen.items() for _ in picked]
        before, after = (effect / torch.tensor(per) for effect in ablation)
        limits = threshold(before[1:]).tolist()
        graph, members = [], {member.name: member for member in self.downstream}
        for name, first_order in attributed.items():
            for target in chosen[name]:
                i = len(graph)
                node = self._output(target) if name is None else self._node(DOWNSTREAM, members[name], target)
                activation = None if name is None else float(after[0, i])
                edge = _edge(centre, node, float(first_order[target]), float(before[0, i]), activation, limits[i])
                graph.append((node, edge))
        return graph

    def _first_order(self, run: Run) -> tuple[dict[str | None, list[int]], dict[str | None, Float[Tensor, " _"]]]:
        """Return the largest first-order effects by dictionary, under None those on outputs: which, and all of them."""
        reads = list(dict.fromkeys(member.reads for member in self.downstream))
        attributed: dict[str | None, Tensor] = {}
        if not reads and self.outputs is None:
            return {}, {}
        with differentiating():
            to_end = self.outputs is not None
            found, output = tangents(self.loaded.subject, run.batch, run.own, run.latent, reads, to_end)
            for member in self.downstream:
                attributed[member.name] = effects(run.seen[member.name], found[member.reads])
            if self.outputs is not None:
                places = self.outputs.places(run.own.grid(run.latent) > 0)
                attributed[None] = tangent_of(self.outputs.scores(output, places)).sum(0)
        attributed = {name: effect / self._count(run, name) for name, effect in attributed.items()}
        sizes = {name: self.config.n_outputs if name is None else self.config.n_latents for name in attributed}
        chosen = {name: _strongest(effect, sizes[name]) for name, effect in attributed.items()}
        chosen = {name: picked for name, picked in chosen.items() if picked}
        return chosen, {name: attributed[name] for name in chosen}

    def _count(self, run: Run, name: str | None) -> int:
        """Return what effects are divided by: firings, or the places where outputs are looked at."""
        if name is not None or self.outputs is None:
            return run.n_firings
        return int(self.outputs.places(run.own.grid(run.latent) > 0).sum())

    def _node(self, layer: str, member: Member, latent: int, title: str | None = None) -> Node:
        return Node(
            id=f"{layer} {member.name} {latent}",
            layer=layer,
            dictionary=member.name,
            hookpoint=member.writes.hookpoint if layer == UPSTREAM else member.reads,
            latent=latent,
            title=title,
            fires_on=self.glossary.fires_on(member, latent),
            writes=self.glossary.writes(member, latent),
        )

    def _output(self, thing: int) -> Node:
        assert self.outputs is not None
        return Node(id=f"{OUTPUT} {thing}", layer=OUTPUT, hookpoint=self.outputs.what, title=self.outputs.name(thing))


class CircuitAsk:
    """Answers a page's question for the circuit of a latent: `{"latent": 123}`."""

    def __init__(self, circuits: Circuits) -> None:
        self.circuits = circuits

    @classmethod
    def of(cls, loaded: Loaded) -> "CircuitAsk | None":
        """Return what answers; None where there is neither another dictionary nor an output with names."""
        circuits = Circuits(loaded)
        return cls(circuits) if circuits.members[1:] or circuits.outputs is not None else None

    @property
    def about(self) -> Mapping[str, Any]:
        """Which dictionaries lie before and after, and whether outputs have names."""
        circuits = self.circuits
        return {
            UPSTREAM: [{"name": one.name, "hookpoint": one.writes.hookpoint} for one in circuits.upstream],
            DOWNSTREAM: [{"name": one.name, "hookpoint": one.reads} for one in circuits.downstream],
            OUTPUT: None if circuits.outputs is None else circuits.outputs.what,
        }

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        latent = question.get("latent")
        if not isinstance(latent, int) or isinstance(latent, bool):
            raise CatalogError(f"latent {latent!r}: must be a number.")
        return self.circuits.trace(latent).to_json()


def circuit(loaded: Loaded, latent: int, config: CircuitConfig | None = None) -> Circuit:
    """Trace one latent's circuit; for several, `Circuits` keeps what they share.

    Raises:
        CatalogError: see `Circuits`; or there is no such latent, or it fires on no example.
    """
    return Circuits(loaded, config).trace(latent)


def _strongest(effects: Float[Tensor, " n"], n: int) -> list[int]:
    """Return the numbers of the largest effects of either sign, those without any left out."""
    order = effects.abs().topk(min(n, len(effects))).indices
    return [int(i) for i in order if effects[i] != 0]


def _edge(
    source: Node, target: Node, attribution: float, ablation: float, activation: float | None, limit: float
) -> Edge:
    return Edge(
        source=source.id,
        target=target.id,
        attribution=_rounded(attribution),
        ablation=_rounded(ablation),
        activation=None if activation is None else _rounded(activation),
        control=rounded(limit),
        confirmed=confirmed(attribution, ablation, limit),
    )


def _agreement(graph: Sequence[tuple[Node, Edge]]) -> dict[str, dict[str, float | int | None]]:
    found = {}
    for layer in dict.fromkeys(node.layer for node, _ in graph):
        edges = [edge for node, edge in graph if node.layer == layer]
        both = np.array([[edge.attribution, edge.ablation] for edge in edges]).T
        varied = len(edges) > 2 and bool((both.std(1) > 0).all())
        found[layer] = {
            "edges": len(edges),
            "confirmed": sum(edge.confirmed for edge in edges),
            "correlation": rounded(float(np.corrcoef(both)[0, 1])) if varied else None,
        }
    return found


def _rounded(value: float) -> float:
    found = rounded(value)
    if found is None:
        raise CatalogError(f"an effect is {value}; are the subject's activations finite?")
    return found
