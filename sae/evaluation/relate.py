"""Compare dictionaries with one another: over seeds, over subjects, over sizes, whichever they allow."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.errors import ConfigError
from sae.evaluation.members import Member, take_members
from sae.evaluation.metric import Measured
from sae.evaluation.relate_sizes import growths, write_growths
from sae.evaluation.relation import Comparison, Relation
from sae.evaluation.responses import Responses, SparseResponses
from sae.evaluation.stability import match_dictionaries, match_random, stability_scores
from sae.evaluation.typical import Factors
from sae.evaluation.universality import best_partners, shuffled_items, universality
from sae.inputs.base import Inputs
from sae.log import track

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RelateConfig:
    """Which dictionaries to compare, on which rows."""

    dictionaries: tuple[str, ...]
    """Folders of dictionaries, or builtin:SUBJECT/HOOKPOINT; two or more."""
    store: Path
    """Store of vectors that the dictionaries were not trained on."""
    out: Path
    """Folder for relation.json, latents.safetensors and, for dictionaries of several sizes, the splitting graph and
    its pictures."""
    other_store: Path | None = None
    """Store of the second subject on the same inputs."""
    n_vectors: int = 262_144
    """Compare activations on at most this many rows."""
    root: int | None = None
    """Latent of the smallest dictionary whose splitting is drawn; by default one whose children tell contexts apart."""
    seed: int = 0
    """Decides the halves, the controls and the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.dictionaries) < 2:
            raise ConfigError(f"dictionaries: two or more are compared, got {list(self.dictionaries)}.")
        if self.n_vectors < 1:
            raise ConfigError(f"n_vectors: must be at least 1, got {self.n_vectors}.")


def relate(
    dictionaries: Sequence[Dictionary],
    stores: Sequence[ActivationStore],
    config: RelateConfig,
    inputs: Inputs | None = None,
    token_text: Callable[[int], str] = str,
) -> Relation:
    """Compare dictionaries, and write what was found to `config.out`.

    Of one hookpoint and one size: stability and universality. Of one hookpoint and several sizes: feature splitting,
    as a graph and as pictures. Of two subjects: universality. Scores are those of the latents of the one given first
    (for splitting, of the smaller or the larger as the metric says), each beside its controls. Where there are several
    of a size, the first of each size are the levels of the graph, and the second is a control.

    Args:
        dictionaries: as named in `config.dictionaries`, in that order.
        stores: of one subject each, made from the same inputs.
        config: settings.
        inputs: what the first store was made from; their labels name contexts in the picture.
        token_text: turns a token into text for the picture.

    Raises:
        EvaluationError: dictionaries and stores do not belong together.
        StoreError: the stores have other inputs.
    """
    members = take_members(config.dictionaries, dictionaries, stores, config.n_vectors, config.seed)
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
    bars: list[dict[str, Any]] = []
    for number, steps in enumerate(growths(members)):
        for step in steps:
            note(step.small, step.large, *step.scores)
            bars.append({"one": step.small.name, "two": step.large.name, "masked_cosine": step.bar})
        factors = Factors.of(steps[0].small.units.sample.rows, _labelling(inputs, stores[0]), token_text)
        write_growths(steps, factors, config.out / f"splitting{number or ''}", config.root)
    about = _about(members, stores, config) | {"splitting_bars": bars}
    relation = Relation(about=about, comparisons=comparisons, per_latent=per_latent)
    relation.save(config.out)
    return relation


def _labelling(inputs: Inputs | None, store: ActivationStore) -> Inputs | None:
    """Return the inputs if they are those of the store."""
    if inputs is not None and inputs.fingerprint != store.manifest.inputs.fingerprint:
        logger.warning(
            "the inputs have fingerprint %s, %s was harvested from %s; their labels are not used.",
            inputs.fingerprint[:16],
            store,
            store.manifest.inputs.fingerprint[:16],
        )
        return None
    return inputs


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
