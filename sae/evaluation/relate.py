"""Compare dictionaries with one another: over seeds, over subjects, over sizes, whichever they allow."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae import builtin
from sae.activations.join import join
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.random_directions import RandomDirections, RandomDirectionsConfig
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.metric import Measured
from sae.evaluation.relation import Comparison, Relation
from sae.evaluation.responses import Responses, SparseResponses
from sae.evaluation.sample import CONTROL_SEED, Sample, Units, halves
from sae.evaluation.splitting import Node, SplittingGraph, splitting_scores
from sae.evaluation.splitting_picture import drawn_edges, splitting_picture
from sae.evaluation.stability import match_dictionaries, match_random, stability_scores
from sae.evaluation.universality import best_partners, shuffled_items, universality
from sae.log import track

MAX_DRAWN_CHILDREN = 12
_CENTRE_ROWS = 8192
"""Rows whose geometric median random directions are centred on."""


@dataclass(frozen=True, kw_only=True)
class RelateConfig:
    """Which dictionaries to compare, on which rows."""

    dictionaries: tuple[str, ...]
    """Folders of dictionaries, or builtin:SUBJECT/HOOKPOINT; two or more."""
    store: Path
    """Store of vectors that the dictionaries were not trained on."""
    out: Path
    """Folder for relation.json, latents.safetensors and, for dictionaries of several sizes, the splitting graph."""
    other_store: Path | None = None
    """Store of the second subject on the same inputs."""
    n_vectors: int = 262_144
    """Compare activations on at most this many rows."""
    root: int | None = None
    """Latent of the smallest dictionary whose splitting is drawn; by default one with many children."""
    seed: int = 0
    """Decides the halves, the controls and the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.dictionaries) < 2:
            raise ConfigError(f"dictionaries: two or more are compared, got {list(self.dictionaries)}.")
        if self.n_vectors < 1:
            raise ConfigError(f"n_vectors: must be at least 1, got {self.n_vectors}.")


@dataclass
class Member:
    """One of the dictionaries compared, at work on the shared rows, with the controls of its size."""

    number: int
    units: Units
    seed: int
    _drawn: dict[int, Units] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.units.name

    @property
    def dictionary(self) -> Dictionary:
        return self.units.dictionary

    @property
    def subject(self) -> str:
        return subject_of(self.name, self.dictionary)

    @cached_property
    def neurons(self) -> Units:
        """The raw neurons of the hookpoint."""
        d_in = self.dictionary.d_in
        return Units("neurons", Identity(IdentityConfig(d_sae=d_in), d_in), self.units.sample)

    def random_directions(self, draw: int) -> Units:
        """Return random directions of the same number that fire as often; draws 0 and 1 are independent."""
        if draw not in self._drawn:
            n_rows = len(self.units.sample.x)
            l0 = max(1, round(float(self.units.responses.n_fired.sum()) / n_rows))
            settings = RandomDirectionsConfig(d_sae=self.dictionary.d_sae, k=min(l0, self.dictionary.d_sae))
            dictionary = RandomDirections(settings, self.dictionary.d_in)
            generator = torch.Generator().manual_seed(CONTROL_SEED + 2 * self.seed + draw)
            dictionary.initialise(self.units.sample.x[:_CENTRE_ROWS].float(), generator)
            self._drawn[draw] = Units("random_directions", dictionary, self.units.sample)
        return self._drawn[draw]


def relate(
    dictionaries: Sequence[Dictionary],
    stores: Sequence[ActivationStore],
    config: RelateConfig,
    token_text: Callable[[int], str] | None = None,
) -> Relation:
    """Compare dictionaries, and write what was found to `config.out`.

    Of one hookpoint and one size: stability and universality. Of one hookpoint and several sizes: feature splitting,
    as a graph and as a picture. Of two subjects: universality. Scores are those of the latents of the one given first
    (of the smaller one for splitting), each beside its controls.

    Args:
        dictionaries: as named in `config.dictionaries`, in that order.
        stores: of one subject each, made from the same inputs.
        config: settings.
        token_text: turns a token into text for the picture.

    Raises:
        EvaluationError: dictionaries and stores do not belong together.
        StoreError: the stores have other inputs.
    """
    members = _members(dictionaries, stores, config)
    comparisons: list[Comparison] = []
    per_latent: dict[str, Tensor] = {}

    def note(one: Member, two: Member, scored: Sequence[Measured], controls: dict[str, list[Measured]]) -> None:
        for number, measured in enumerate(scored):
            beside = {name: values[number] for name, values in controls.items()}
            comparisons.append(Comparison.of(one.name, two.name, measured, beside, config.seed))
            per_latent[f"{measured.definition.name}.{one.number}.{two.number}"] = measured.values

    pairs = list(itertools.combinations(members, 2))
    for one, two in track(pairs, "compare", total=len(pairs), unit="pairs"):
        other_subject = one.subject != two.subject
        if not other_subject and one.dictionary.d_sae != two.dictionary.d_sae:
            continue
        if not other_subject:
            alive = one.units.alive, two.units.alive
            matching = match_dictionaries(one.dictionary, two.dictionary, alive)
            control = match_random(one.dictionary, alive[0], config.seed)
            note(one, two, stability_scores(matching), {"random_directions": stability_scores(control)})
            per_latent[f"matched.{one.number}.{two.number}"] = matching.partner
        partners = best_partners(one.units.responses, two.units.responses, one.units.sample.match)
        note(one, two, [universality(partners)], dict(_universality_controls(one, two, config.seed)))
        per_latent[f"partner.{one.number}.{two.number}"] = partners.partner
    for levels in _sizes(members):
        graph = _split(levels, note)
        _write_graph(graph, levels, config, token_text)
    relation = Relation(about=_about(members, stores, config), comparisons=comparisons, per_latent=per_latent)
    relation.save(config.out)
    return relation


def subject_of(name: str, dictionary: Dictionary) -> str:
    """Return the subject a dictionary was trained on, seed spelled out.

    Raises:
        EvaluationError: the dictionary does not say.
    """
    subject = dictionary.provenance.get("subject")
    if subject is None or "hookpoint" not in dictionary.provenance:
        raise EvaluationError(f"{name}: its dictionary.json names no subject and hookpoint, so nothing to compare on.")
    return _canonical(subject)


def _canonical(subject: str) -> str:
    return builtin.canonical(subject) if subject.startswith(builtin.PREFIX) else subject


def _members(
    dictionaries: Sequence[Dictionary], stores: Sequence[ActivationStore], config: RelateConfig
) -> list[Member]:
    """Put every dictionary to work on rows that all stores share."""
    named = list(zip(config.dictionaries, dictionaries, strict=True))
    hookpoints: dict[str, str] = {}
    for name, dictionary in named:
        hookpoint, subject = dictionary.provenance.get("hookpoint", ""), subject_of(name, dictionary)
        if hookpoints.setdefault(subject, hookpoint) != hookpoint:
            raise EvaluationError(
                f"{name}: reads {hookpoint}, another dictionary of {subject} reads {hookpoints[subject]}; "
                "dictionaries of one subject are compared on one hookpoint."
            )
    stored = {_canonical(store.subject_id): store for store in stores}
    if len(stored) != len(stores) or set(stored) != set(hookpoints):
        raise EvaluationError(
            f"the dictionaries are of {', '.join(hookpoints)}; the stores hold "
            f"{', '.join(store.subject_id for store in stores)}. Each subject needs one store (--store, --other-store)."
        )
    vectors = [store.vectors(hookpoints[subject], TRAINING_KINDS) for subject, store in stored.items()]
    samples = dict(zip(stored, _samples(vectors, config), strict=True))
    for name, dictionary in named:
        width = samples[subject_of(name, dictionary)].x.shape[1]
        if dictionary.d_in != width:
            raise EvaluationError(f"{name}: is for vectors of width {dictionary.d_in}, the store's are {width} wide.")
    return [
        Member(number, Units(name, dictionary.eval(), samples[subject_of(name, dictionary)]), config.seed)
        for number, (name, dictionary) in enumerate(named)
    ]


def _samples(vectors: Sequence[Vectors], config: RelateConfig) -> Iterator[Sample]:
    """Yield the rows of each store, aligned, split by example into the same halves."""
    aligned = join(vectors) if len(vectors) > 1 else tuple(vectors)
    n_rows = min(len(aligned[0]), config.n_vectors)
    places = [v.provenance(0, n_rows) for v in aligned]
    tokens = [place.token for place in places if place.token is not None]
    if not all(torch.equal(tokens[0], token) for token in tokens[1:]):
        raise EvaluationError("the stores hold other tokens at the same places; the subjects' tokenizers differ.")
    match = halves(places[0].example, config.seed)
    if not 0 < int(match.sum()) < n_rows:
        raise EvaluationError(f"{aligned[0]!r}: {n_rows} shared rows cannot be split into halves by example.")
    for v, rows in zip(aligned, places, strict=True):
        x = v.read(0, n_rows, v.dtype)
        yield Sample(x=x, rows=rows, pooled=False, labels={}, factors={}, label_names={}, match=match)


def _universality_controls(one: Member, two: Member, seed: int) -> Iterator[tuple[str, list[Measured]]]:
    match = one.units.sample.match

    def scored(ours: Responses, theirs: Responses) -> list[Measured]:
        return [universality(best_partners(ours, theirs, match))]

    yield "random_directions", scored(one.random_directions(0).responses, two.random_directions(1).responses)
    # Neurons of one subject are their own partners, which says nothing.
    if one.subject != two.subject:
        yield "neurons", scored(one.neurons.responses, two.neurons.responses)
    if isinstance(two.units.responses, SparseResponses):
        yield "shuffled_rows", scored(one.units.responses, shuffled_items(two.units.responses, match, seed))


def _sizes(members: Sequence[Member]) -> Iterator[list[Member]]:
    """Yield the dictionaries of each subject that has several sizes, one per size, the smallest first."""
    for subject in dict.fromkeys(member.subject for member in members):
        by_size: dict[int, Member] = {}
        for member in members:
            if member.subject == subject:
                by_size.setdefault(member.dictionary.d_sae, member)
        if len(by_size) > 1:
            yield [by_size[size] for size in sorted(by_size)]


def _split(levels: Sequence[Member], note: Callable[..., None]) -> SplittingGraph:
    """Build the graph of all levels, and score each step beside its controls."""
    for small, large in itertools.pairwise(levels):
        match = small.units.sample.match
        controls = {
            "random_directions": large.random_directions(0).responses,
            "shuffled_rows": shuffled_items(_sparse(large), match, large.seed),
        }
        step = SplittingGraph.build([small.name, large.name], [_sparse(small), _sparse(large)])
        beside = {
            name: splitting_scores(SplittingGraph.build([small.name, name], [_sparse(small), responses]))
            for name, responses in controls.items()
        }
        note(small, large, splitting_scores(step), beside)
    names = [f"{level.dictionary.d_sae:,} latents" for level in levels]
    return SplittingGraph.build(names, [_sparse(level) for level in levels])


def _sparse(member: Member) -> SparseResponses:
    responses = member.units.responses
    if not isinstance(responses, SparseResponses):
        raise EvaluationError(f"{member.name}: splitting needs sparse codes; {member.dictionary!r} is dense.")
    return responses


def _write_graph(
    graph: SplittingGraph, levels: Sequence[Member], config: RelateConfig, token_text: Callable[[int], str] | None
) -> None:
    """Save the graph, and draw one latent that splits where there is one."""
    name = "splitting" + (f"-{levels[0].number}" if levels[0].number else "")
    graph.save(config.out / f"{name}.json")
    latent = widest_root(graph) if config.root is None else config.root
    if not 0 <= latent < len(graph.rates[0]):
        raise ConfigError(f"root: no latent {latent}; {graph.names[0]} are numbered 0 to {len(graph.rates[0]) - 1}.")
    if not graph.children(latent):
        return
    tokens = levels[0].units.sample.rows.token
    nodes = {node for edge in drawn_edges(graph, (0, latent))[0] for node in edge[:2]}
    labels: dict[Node, str] = {}
    if tokens is not None and token_text is not None:
        labels = {node: token_text(main_token(_sparse(levels[node[0]]), tokens, node[1])) for node in nodes}
    hashes = ", ".join(level.dictionary.hash[:10] for level in levels)
    splitting_picture(graph, (0, latent), labels, config.out / name, f"dictionaries {hashes}")


def widest_root(graph: SplittingGraph) -> int:
    """Return the latent of the smallest dictionary with the most children that can still be drawn apart.

    Where all that split have more children than that, the one with the fewest.
    """
    counts = graph.n_children()
    drawable = torch.where(counts <= MAX_DRAWN_CHILDREN, counts, -counts)
    return int(torch.where(counts >= 2, drawable, -len(graph.rates[1]) - 1).argmax())


def main_token(responses: SparseResponses, tokens: Int[Tensor, " rows"], latent: int) -> int:
    """Return the token on which a latent's activations sum to most."""
    entries = slice(int(responses.offsets[latent]), int(responses.offsets[latent + 1]))
    fired_on, values = tokens[responses.items[entries].long()].long(), responses.values[entries].double()
    return int(torch.zeros(int(tokens.max()) + 1, dtype=torch.float64).index_add_(0, fired_on, values).argmax())


def _about(members: Sequence[Member], stores: Sequence[ActivationStore], config: RelateConfig) -> dict[str, Any]:
    return {
        "dictionaries": [
            {
                "source": member.name,
                "sha256": member.dictionary.hash,
                "subject": member.subject,
                "hookpoint": member.dictionary.provenance["hookpoint"],
                "d_sae": member.dictionary.d_sae,
                "n_dead": int((~member.units.alive).sum()),
            }
            for member in members
        ],
        "stores": [{"sha256": store.hash, "inputs": store.manifest.inputs.fingerprint} for store in stores],
        "n_rows": len(members[0].units.sample.x),
        "seed": config.seed,
    }
