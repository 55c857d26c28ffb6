"""What is steered with beside a latent: random latents, neurons and directions, and other directions of its concept."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sae.errors import EvaluationError
from sae.evaluation.sample import LabelTable
from sae.evaluation.weights import Weights
from sae.inputs.base import Labelled
from sae.lab.change.doses import Bed, Response, Steering, strength_at_cost
from sae.lab.change.interventions import places
from sae.lab.change.rivals import Candidates
from sae.lab.spread import Spread
from sae.lab.workbench import Workbench

CONTROLS = ("random latents", "random directions", "random neurons")


def controls(bench: Workbench, own: Steering, fired: Sequence[int], n: int) -> dict[str, list[Steering]]:
    """Return what writes vectors as long as a latent's at the same positions, at random.

    Args:
        bench: whose latents and seed.
        own: steering with the latent.
        fired: other latents that fire.
        n: how many of each kind, of latents and neurons at most as many as there are.
    """
    dictionary, generator = bench.dictionary, torch.Generator().manual_seed(bench.seed)
    decoder, d_out = dictionary.W_dec.detach().float(), dictionary.d_out
    latents = [fired[one] for one in torch.randperm(len(fired), generator=generator)[:n].tolist()]
    directions = torch.randn(n, d_out, generator=generator).to(decoder)
    neurons = torch.randperm(d_out, generator=generator)[:n].tolist()
    axes = torch.eye(d_out, device=decoder.device)
    found = (
        [own.along(f"latent {one}", decoder[one]) for one in latents],
        [own.along(f"direction {number}", one) for number, one in enumerate(directions)],
        [own.along(f"neuron {one}", axes[one]) for one in neurons],
    )
    return dict(zip(CONTROLS, found, strict=True))


def concept_of(bench: Workbench, answer: str, latent: int) -> tuple[Candidates, str] | str:
    """Return the labelled concept of what is steered: the answer's where it has a label, else the latent's own.

    A latent's own is the label that it tells apart best on the half to match on.

    Returns:
        What finds its directions, and its name; or why there is none: no labels, none frequent enough, or a transcoder,
        since vectors where it writes are not in the sample.
    """
    reads, writes = places(bench.dictionary)
    if reads != writes:
        return "of a transcoder's output no vectors are known"
    if not isinstance(bench.inputs, Labelled):
        return "the inputs have no labels"
    try:
        table: LabelTable = bench.sample.table
    except EvaluationError as cause:
        return str(cause).removesuffix(".")
    family = bench.inputs.classes.family if bench.inputs.classes is not None else None
    if family is not None and (of_answer := Candidates(bench, family)).label(answer) is not None:
        return of_answer, answer
    match = bench.sample.match
    own = bench.latents.responses.of_units(range(latent, latent + 1)).on(match)
    area = own.auc(Weights.of(table.columns[match]))[0]
    return Candidates(bench, None), table.names[int(area.argmax())]


@dataclass(frozen=True)
class Rival:
    """Another direction of the same concept, steered with as a latent is.

    Attributes:
        name: of what gives the direction.
        response: to the latent's doses, which write vectors as long.
        strength: the dose at which it costs as much as the latent on the half to choose on.
        move, kl: by how much that dose moves the answer on the half to score on, and what it costs there.
        behind: how much less far it moves the answer than the latent does, per example, the latent's way.
    """

    name: str
    response: Response
    strength: float
    move: float
    kl: float
    behind: Spread

    @classmethod
    def of(cls, beds: Sequence[Bed], own: Steering, latent: Response, steering: Steering, answer: int) -> "Rival":
        """Steer with it at all doses of a latent, and at the one that costs as much."""
        response, dose = Response.of(beds, steering, latent.scored.strengths), latent.dose(answer)
        towards = response.strength(answer)
        strength = strength_at_cost(beds[0], steering, float(latent.matched.kl[dose]), towards)
        odds, kl = beds[1].steered(steering, strength)
        way = 1.0 if latent.move(answer) >= 0 else -1.0
        apart = beds[1].by_example(own, latent.strength(answer), answer) - beds[1].by_example(
            steering, strength, answer
        )
        move = float(odds[answer] - latent.scored.clean[answer])
        return cls(steering.name, response, strength, move, kl, Spread.of(way * apart))
