"""Circuits as plain data: nodes, edges between any two of them, and how far ablations bear the edges out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sae.errors import ConfigError

UPSTREAM, CENTRE, DOWNSTREAM, OUTPUT = "upstream", "centre", "downstream", "output"


@dataclass(frozen=True, kw_only=True)
class CircuitConfig:
    """How much to look at, and to draw."""

    n_examples: int = 12
    """Examples of the latent, spread evenly over its quantiles."""
    n_latents: int = 8
    """Latents to draw of each other dictionary."""
    n_outputs: int = 6
    """Outputs to draw."""
    n_controls: int = 40
    """Latents to ablate for control, per dictionary."""
    batch_examples: int = 32
    """Examples that go through the subject at a time in ablations; decides speed."""

    def __post_init__(self) -> None:
        for name, least in {
            "n_examples": 1,
            "n_latents": 1,
            "n_outputs": 0,
            "n_controls": 0,
            "batch_examples": 1,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A latent or an output.

    Attributes:
        id: unique in its circuit.
        layer: "upstream", "centre", "downstream" or "output".
        dictionary, latent: which latent; None for an output.
        hookpoint: where it writes if it is a source, and is read if a target.
        title: of the catalog's card, or the output's name; None for latents without a catalog.
        fires_on, writes: short names, see `Glossary`.
    """

    id: str
    layer: str
    dictionary: str | None = None
    hookpoint: str | None = None
    latent: int | None = None
    title: str | None = None
    fires_on: Sequence[str] = ()
    writes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An effect of one node on another, per firing of the circuit's latent.

    Attributes:
        source, target: ids of nodes.
        attribution: to first order.
        ablation: truly, on the target's pre-activation or output.
        activation: truly, on the target's activation; None for outputs.
        control: what the size of the ablation has to exceed; None where no latent could serve as control.
        confirmed: whether the ablation bears out the attribution.
    """

    source: str
    target: str
    attribution: float
    ablation: float
    activation: float | None
    control: float | None
    confirmed: bool


HEADER = ("layer", "latent", "fires on, or is", "attribution", "ablation", "control", "confirmed")


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A latent, what drives it and what it does.

    Attributes:
        latent, title: the one in the middle.
        n_examples, n_firings: what was averaged over.
        activation: mean of the latent's where it fires.
        nodes, edges: the graph.
        agreement: per layer, how well attributions foretell ablations: `edges` drawn, `confirmed` ones, and their
            `correlation` over the edges, None for fewer than three.
        seconds: that it took.
    """

    latent: int
    title: str
    n_examples: int
    n_firings: int
    activation: float
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    agreement: Mapping[str, Mapping[str, float | int | None]]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a row of a table per edge, under `HEADER`."""
        nodes = {node.id: node for node in self.nodes}
        for edge in self.edges:
            node = nodes[edge.target if nodes[edge.source].layer == CENTRE else edge.source]
            label = node.title or ", ".join(map(repr, node.fires_on))
            number = "" if node.latent is None else f"{node.dictionary} {node.latent}"
            values = (edge.attribution, edge.ablation, edge.control)
            shown = ("–" if value is None else f"{value:.3g}" for value in values)
            yield (node.layer, number, label, *shown, "yes" if edge.confirmed else "no")
