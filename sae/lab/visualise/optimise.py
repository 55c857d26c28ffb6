"""Pictures that drive units, by gradient ascent: one optimisation over many pictures, each with a unit of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.errors import EvaluationError, nearest
from sae.features.circuits.attribution import pre_activations
from sae.lab.visualise.parametrise import Parametrisation, Pictures, total_variation
from sae.lab.visualise.transform import Transform
from sae.log import track
from sae.subjects.base import Activation, SeesPictures, Subject

LEAST_COSINE = 0.1
"""What a cosine counts for at least, so that a picture that points nowhere yet has somewhere to go."""
At = Literal["max", "mean"] | int
"""Positions that are counted: the largest, all alike, or one by its number."""


class Term(Protocol):
    """What an objective is extended by."""

    @property
    def reads(self) -> Sequence[str]:
        """Hookpoints before the aim's whose activations it needs."""
        ...

    def add(self, values: Float[Tensor, " n"], found: Mapping[str, Activation]) -> Float[Tensor, " n"]:
        """Return what is added, from the values of the pictures and their activations."""
        ...


@dataclass(frozen=True)
class Aim:
    """One unit for every picture, and what counts as driving it.

    Attributes:
        dictionary: whose units, at one hookpoint of an image tower; for neurons the identity.
        hookpoint: that it reads.
        units: of each picture.
        at: over which positions.
        prefix: positions before the patches (class token, registers), which count only where `at` names them.
        cosine: power of the cosine between the vector and the unit's direction that values are multiplied by (Carter
            et al. 2019, *Activation Atlas*): 0 takes the pre-activation alone.
        strong: what is strong for each unit; values are in these units, so that terms weigh alike for all.
    """

    dictionary: Dictionary
    hookpoint: str
    units: Int[Tensor, " n"]
    at: At = "max"
    prefix: int = 0
    cosine: float = 0.0
    strong: Float[Tensor, " n"] | None = None

    def pre_activation(self, x: Activation) -> Float[Tensor, "n pos"]:
        """Return what each picture's unit says at every position, before anything is selected."""
        n, n_positions = x.shape[:2]
        every, own = self.units.unique(return_inverse=True)
        pre = pre_activations(self.dictionary, x.flatten(0, 1), every).view(n, n_positions, -1)
        return pre.gather(2, own.to(pre.device).view(n, 1, 1).expand(n, n_positions, 1))[:, :, 0]

    def values(self, x: Activation) -> Float[Tensor, " n"]:
        """Return what is made large, one number for each picture."""
        value = self.pre_activation(x)
        if self.cosine:
            value = value * self._cosine(x).clamp_min(LEAST_COSINE) ** self.cosine
        value = reduced(value, self.at, self.prefix)
        return value if self.strong is None else value / self.strong.to(value)

    def reached(self, x: Activation) -> Float[Tensor, " n"]:
        """Return the pre-activations themselves, over the same positions."""
        return reduced(self.pre_activation(x), self.at, self.prefix)

    def _cosine(self, x: Activation) -> Float[Tensor, "n pos"]:
        centred = self.dictionary.normalised(x.flatten(0, 1).float()) - self.dictionary.centre
        direction = self.dictionary.W_enc_rows.detach()[self.units].to(centred)
        return F.cosine_similarity(centred.view_as(x), direction[:, None], dim=2)


def reduced(values: Float[Tensor, "n pos"], at: At, prefix: int = 0) -> Float[Tensor, " n"]:
    """Take the largest or the mean over patches, or one position.

    Raises:
        EvaluationError: there is no such position.
    """
    n_positions = values.shape[1]
    if isinstance(at, int):
        if not 0 <= at < n_positions:
            raise EvaluationError(f"no position {at}; allowed: 0 to {n_positions - 1}, or max or mean over patches.")
        return values[:, at]
    patches = values[:, prefix:]
    return patches.amax(1) if at == "max" else patches.mean(1)


def likeness(x: Activation, group: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return, for each picture, the mean cosine between its Gram matrix of channels and those of its group's others.

    Its negative is the diversity of Olah et al. 2017. Zero for a picture that is alone in its group.
    """
    gram = F.normalize(torch.einsum("npi,npj->nij", x, x).flatten(1), dim=1)
    together = (group[:, None] == group).to(x) - torch.eye(len(group)).to(x)
    return ((gram @ gram.T) * together).sum(1) / together.sum(1).clamp_min(1)


@dataclass(frozen=True)
class Ascent:
    """How pictures are optimised.

    Attributes:
        steps, learning_rate: of Adam.
        transform: what pictures go through before the subject sees them.
        seed: of all that is drawn.
        diversity: weight of `likeness`, taken off.
        smoothness: weight of the pictures' total variation, as a multiple of `variation`, taken off.
        variation: of real pictures.
        keep: how many intermediate pictures to keep, at evenly growing steps.
    """

    transform: Transform
    steps: int = 256
    learning_rate: float = 0.05
    seed: int = 0
    diversity: float = 0.0
    smoothness: float = 0.0
    variation: float = 1.0
    keep: int = 0


@dataclass(frozen=True)
class Visualised:
    """What came out.

    Attributes:
        pictures: the last ones.
        reached: their pre-activations, seen straight.
        course: pre-activations under transformation, at every step.
        kept: intermediate pictures by step.
    """

    pictures: Pictures
    reached: Float[Tensor, " n"]
    course: Float[Tensor, "steps n"]
    kept: dict[int, Pictures] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchor:
    """Pictures to stay near, as a lower layer sees them (feature accentuation: Hamblin et al. 2024, arXiv 2402.10039).

    Attributes:
        pictures: one for each picture that is optimised; for a layer they go through the same transformations.
        hookpoint: where activations are compared; None compares the pixels.
        weight: of their squared distance, as a share of the anchor's squared norm.
    """

    pictures: Pictures
    hookpoint: str | None
    weight: float = 1.0

    @property
    def reads(self) -> list[str]:
        """The hookpoint, if it is one."""
        return [] if self.hookpoint is None else [self.hookpoint]

    def departure(self, x: Activation, anchored: Activation) -> Float[Tensor, " n"]:
        """Return the weighted distance of activations from the anchor's."""
        distance = (x - anchored).float().square().flatten(1).sum(1)
        return self.weight * distance / anchored.float().square().flatten(1).sum(1)


def visualise(
    subject: Subject,
    aim: Aim,
    parametrisation: Parametrisation,
    ascent: Ascent,
    term: Term | None = None,
    anchor: Anchor | None = None,
    title: str = "visualise",
) -> Visualised:
    """Optimise pictures, each for its own unit; but for diversity, they do not see each other.

    Args:
        subject: that sees pictures.
        aim: the units, one for each picture.
        parametrisation: of as many pictures.
        ascent: how.
        term: what is added to the values, in units of `aim.strong`.
        anchor: pictures to stay near.
        title: of the progress bar.

    Raises:
        EvaluationError: the subject has no pictures, or the unit does not exist.
    """
    seeing = check_aim(subject, aim)
    generator = torch.Generator().manual_seed(ascent.seed)
    optimiser = torch.optim.Adam(parametrisation.parameters, lr=ascent.learning_rate)
    names = list(dict.fromkeys([*(term.reads if term else ()), *(anchor.reads if anchor else ()), aim.hookpoint]))
    moments = {round(ascent.steps * (k / max(ascent.keep, 1)) ** 2) for k in range(ascent.keep)}
    course, kept = [], {}
    with torch.enable_grad():
        for step in track(range(ascent.steps), title):
            pictures = parametrisation.pictures()
            if step in moments:
                kept[step] = pictures.detach().cpu()
            state = generator.get_state()
            found = seeing.see(ascent.transform(pictures, generator), names)
            x = found[aim.hookpoint].float()
            total = values = aim.values(x)
            if term:
                total = total + term.add(values, found)
            if anchor and anchor.hookpoint is None:
                total = total - anchor.departure(pictures.flatten(2), anchor.pictures.flatten(2)).to(total)
            elif anchor and anchor.hookpoint is not None:
                generator.set_state(state)
                with torch.no_grad():
                    seen = seeing.see(ascent.transform(anchor.pictures, generator), anchor.reads)
                total = total - anchor.departure(found[anchor.hookpoint], seen[anchor.hookpoint])
            if ascent.diversity:
                total = total - ascent.diversity * likeness(x, aim.units.to(x.device))
            if ascent.smoothness:
                total = total - ascent.smoothness / ascent.variation * total_variation(pictures).to(total)
            optimiser.zero_grad()
            (-total.sum()).backward()
            optimiser.step()
            course.append(aim.reached(x).detach().cpu())
    pictures = parametrisation.pictures().detach()
    return Visualised(pictures.cpu(), reached(subject, aim, pictures), torch.stack(course), kept)


@torch.no_grad()
def reached(subject: Subject, aim: Aim, pictures: Pictures) -> Float[Tensor, " n"]:
    """Return the pre-activation of each picture's unit."""
    return aim.reached(check_aim(subject, aim).see(pictures, [aim.hookpoint])[aim.hookpoint].float()).cpu()


def check_aim(subject: Subject, aim: Aim) -> SeesPictures:
    """Return the subject if it can be differentiated for the aim.

    Raises:
        EvaluationError: it sees no pictures, the hookpoint is not of its image tower, or a unit does not exist.
    """
    if not isinstance(subject, SeesPictures) or not aim.hookpoint.startswith("visual."):
        known = [name for name in subject.hookpoints() if name.startswith("visual.")]
        raise EvaluationError(
            f"{subject.id} {aim.hookpoint}: there are no pictures to optimise; take a hookpoint of an image tower "
            f"(visual. ...).{nearest(aim.hookpoint, known) if known else ''}"
        )
    bad = aim.units[(aim.units < 0) | (aim.units >= aim.dictionary.d_sae)]
    if len(bad):
        raise EvaluationError(f"no latent {int(bad[0])}; allowed: 0 to {aim.dictionary.d_sae - 1}.")
    return subject
