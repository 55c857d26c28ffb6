"""What stands beside a latent as the part of a concept: a difference of means, a probe, a neuron, a random latent."""

from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.errors import EvaluationError, nearest
from sae.evaluation.weights import Weights
from sae.lab.change.interventions import Change, Parts, vector_parts
from sae.lab.change.panel import Panel, coded_parts, panel_codes
from sae.lab.workbench import Workbench

LATENTS = ("latent", "latent by effect")
RIVALS = ("difference of means", "linear probe", "best neuron", "neuron by effect", "random latent")
DIRECTIONS = ("difference of means", "linear probe", "best neuron")
METHODS = (*LATENTS, *RIVALS)
BY_EFFECT = ("latent by effect", "neuron by effect")
TRIED = 16
"""Units, the best by area, among which the one with the largest effect is looked for."""
PROBE_STEPS, PROBE_DECAY = 100, 1e-3


class Candidates:
    """The part of every concept by every method, chosen on the half of the sample to match on.

    A latent is the one with the largest area under the ROC curve, a neuron the one whose area is farthest from a half:
    on which side of zero it tells the concept makes no difference to a removal. "By effect" it is, of the 16 best so,
    the one whose removal lowers the concept's score most on a panel of the half to match on; a concept without items
    there has none. A difference of means is that of the concept's vectors and all, and a probe the weights of a
    logistic regression, one for each concept, on the standardised mean vector of each item. Directions are projected
    out towards the mean of all vectors; a neuron is set to zero.

    Args:
        bench: what is chosen from.
        family: of the labels that the concepts are values of; None where concepts are labels themselves.
        matched: the panel to choose by effect on; not needed otherwise.
    """

    def __init__(self, bench: Workbench, family: str | None, matched: Panel | None = None) -> None:
        self.bench, self.family, self.matched = bench, family, matched
        self._strongest_of: dict[tuple[str, bool], int] = {}
        self._columns = {name: number for number, name in enumerate(bench.sample.table.names)}

    def label(self, concept: str) -> int | None:
        """Return the column of a concept in the sample's table; None where it is too rare to have one."""
        return self._columns.get(concept if self.family is None else f"{self.family}={concept}")

    def latents(self, concept: str, n: int) -> list[int]:
        """Return the n latents with the largest area for a concept, best first."""
        return self.bench.latents.auc[0][:, self._found(concept)].topk(n).indices.tolist()

    def random(self, n: int, number: int) -> list[int]:
        """Return n latents that fire on the sample, drawn anew for every number."""
        alive = self.bench.latents.alive.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(self.bench.seed * 100_003 + number)
        return alive[torch.randperm(len(alive), generator=generator)[:n]].tolist()

    def can_choose(self, method: str, concept: str) -> bool:
        """Whether there are items to choose a concept's part on; by effect, on the panel to choose on."""
        if self.label(concept) is None:
            return False
        return method not in BY_EFFECT or bool(self._matched.member[:, self._matched.names.index(concept)].any())

    def parts(self, method: str, concept: str, codes: Codes) -> Parts:
        """Return what a method takes for the part of a concept, in rows whose codes are known."""
        label, dictionary = self._found(concept), self.bench.dictionary
        if method in LATENTS:
            tried = self.latents(concept, 1 if method == "latent" else min(TRIED, dictionary.d_sae))
            return coded_parts(dictionary, codes, [self._strongest(concept, tried, latents=True)])
        if method == "random latent":
            return coded_parts(dictionary, codes, self.random(1, label))
        if method in ("best neuron", "neuron by effect"):
            n = 1 if method == "best neuron" else min(TRIED, dictionary.d_in)
            tried = self.neurons(concept, n)
            return vector_parts(torch.eye(dictionary.d_in)[[self._strongest(concept, tried, latents=False)]])
        vectors = {"difference of means": self._differences, "linear probe": self._probes}[method]
        return vector_parts(vectors[[label]], self._centre)

    def neurons(self, concept: str, n: int) -> list[int]:
        """Return the n neurons that tell a concept best, on either side, best first."""
        return (self.bench.neurons.auc[0][:, self._found(concept)] - 0.5).abs().topk(n).indices.tolist()

    def directions(self, concept: str) -> dict[str, Float[Tensor, " d_in"]]:
        """Return directions to write a concept along, by every method that takes no latent: the same as in `parts`.

        A neuron that is low for the concept points down. Only what one concept needs is worked out.
        """
        sample, label = self.bench.sample, self._found(concept)
        column = sample.table.columns[sample.match][:, [label]]
        side = self.bench.neurons.halves[0].auc(Weights.of(column))[:, 0] - 0.5
        neuron = int(side.abs().argmax())
        along = side[neuron].sign() * torch.eye(sample.x.shape[1])[neuron]
        vectors = (self._differences[label], probes(self._means, column)[0], along)
        return dict(zip(DIRECTIONS, vectors, strict=True))

    def _strongest(self, concept: str, units: list[int], latents: bool) -> int:
        """Return the unit whose removal lowers a concept's score most on the half to match on."""
        if len(units) == 1:
            return units[0]
        key = (concept, latents)
        if key not in self._strongest_of:
            self._strongest_of[key] = self._by_effect(concept, units, latents)
        return self._strongest_of[key]

    def _by_effect(self, concept: str, units: list[int], latents: bool) -> int:
        panel, dictionary = self._matched.of(self._matched.names.index(concept)), self.bench.dictionary
        codes = panel_codes(panel, dictionary)
        falls = []
        for unit in units:
            parts = (
                coded_parts(dictionary, codes, [unit]) if latents else vector_parts(torch.eye(dictionary.d_in)[[unit]])
            )
            falls.append(float((panel.clean - panel.changed(parts, Change("remove")))[:, 0].mean()))
        return units[max(range(len(units)), key=falls.__getitem__)]

    @property
    def _matched(self) -> Panel:
        assert self.matched is not None, "choosing by effect needs a panel of the half to match on"
        return self.matched

    @cached_property
    def _centre(self) -> Float[Tensor, " d_in"]:
        return self._means.mean(0)

    @cached_property
    def _differences(self) -> Float[Tensor, "labels d_in"]:
        return self.bench.sample.label_excess[0].T.float()

    @cached_property
    def _means(self) -> Float[Tensor, "items d_in"]:
        sample = self.bench.sample
        keep = sample.match[sample.item]
        item = sample.item[keep].unique_consecutive(return_inverse=True)[1]
        total = torch.zeros(int(item.max()) + 1, sample.x.shape[1]).index_add_(0, item, sample.x[keep].float())
        return total / item.bincount()[:, None]

    @cached_property
    def _probes(self) -> Float[Tensor, "labels d_in"]:
        sample = self.bench.sample
        return probes(self._means, sample.table.columns[sample.match])

    def _found(self, concept: str) -> int:
        label = self.label(concept)
        if label is None:
            known = [name.removeprefix(f"{self.family}=") for name in self._columns]
            raise EvaluationError(
                f"no label {concept!r} in the sample, or too few items with it.{nearest(concept, known)}"
            )
        return label


def probes(x: Float[Tensor, "items d_in"], labels: Tensor) -> Float[Tensor, "labels d_in"]:
    """Return the weights of a logistic regression for each label, in the coordinates of x.

    Coordinates are standardised, weights decay, and every label is fitted against all items without it by L-BFGS.
    """
    deviation = x.std(0).clamp_min(1e-6)
    z, target = (x - x.mean(0)) / deviation, labels.float()
    weight = torch.zeros(z.shape[1], target.shape[1], requires_grad=True)
    rate = target.mean(0).clamp(1e-6, 1 - 1e-6)
    bias = (rate / (1 - rate)).log().requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        losses = F.binary_cross_entropy_with_logits(z @ weight + bias, target, reduction="none").mean(0).sum()
        loss = losses + PROBE_DECAY / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (weight.detach() / deviation[:, None]).T
