"""Units in the space that images and texts share: where each points there, and what it does to a blank image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, Linear
from sae.errors import EvaluationError
from sae.evaluation.gather import stored_for
from sae.evaluation.joint_space import joint_places
from sae.evaluation.responses import DenseResponses, Responses
from sae.evaluation.sample import Units
from sae.evaluation.splicing import trained_rows
from sae.features.circuits.attribution import Member, only_modality, passed, pre_activations
from sae.features.live.words import Words
from sae.features.removal import chunks, stacked
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation, Edit, Subject
from sae.subjects.splice import record
from sae.tensors import Batch

EXACT = "visual.embedding"
"""Where a unit's own direction is its place in the joint space."""
BATCH_IMAGES = 32

Way = Literal["path", "covariance"]
"""How units get their places: by what they write (see `JointSpace.places`), or by the images that they fire on."""


@dataclass(frozen=True)
class JointSpace:
    """A workbench's units in the joint space of its subject.

    Attributes:
        bench: whose units.
        words: of its inputs.
        member: where the dictionary is at work.
        n_images: of the half to match on, over which attributions are averaged.
    """

    bench: Workbench
    words: Words
    member: Member
    n_images: int = 1024

    @classmethod
    def of(cls, bench: Workbench, n_images: int = 1024) -> "JointSpace":
        """Check that there is such a space and a path to it.

        Raises:
            EvaluationError: the subject has no joint space, the inputs name no classes, or the dictionary reads no
                images.
        """
        words = Words(bench.subject, bench.inputs, most=None)
        member = Member.of("dictionary", bench.dictionary, bench.subject)
        if not member.reads.startswith("visual.") or member.reads != member.writes.hookpoint:
            raise EvaluationError(
                f"{member.reads} -> {member.writes.hookpoint}: this method boosts what an image is taken apart into; "
                "take a dictionary that rebuilds a hookpoint of the image tower (visual. ...)."
            )
        return cls(bench, words, member, n_images)

    @property
    def exact(self) -> bool:
        """Whether the path from a unit to the joint space is linear in itself."""
        return self.member.reads == EXACT

    def places(self, units: Sequence[Units], way: Way = "path") -> list[Float[Tensor, "units d_joint"]]:
        """Return where each unit points.

        By `path`, what it writes: its own direction in the joint space itself; elsewhere its direct attribution to the
        image's embedding e of unit length, E_x[sum over positions of z_j <d_j, de/dx>], over `n_images` images. So its
        product with a text t is the mean effect on cos(x, t) of all that the unit writes, to first order. By
        `covariance`, the covariance of its activation with the images' embeddings.
        """
        if way == "covariance":
            match, embedding = self.bench.sample.match, self.embedding
            return [joint_places(one.responses.on(match), embedding[match]).float() for one in units]
        dictionaries = [one.dictionary for one in units]
        if self.exact:
            return [one.W_dec.detach().float().cpu() for one in dictionaries]
        sample = self.bench.sample
        chosen = sample.example[sample.match].unique()[: self.n_images]
        batches = [self._batch(part) for part in chosen.split(BATCH_IMAGES)]
        return attributed(self.bench.subject, self.member.reads, dictionaries, batches)

    @cached_property
    def embedding(self) -> Float[Tensor, "items d_joint"]:
        """Of every image of the sample, of unit length; from the store, or the subject where it was not harvested."""
        sample = self.bench.sample
        found = stored_for(self.bench.vectors, sample, EXACT)
        if found is None:
            parts = sample.example.split(BATCH_IMAGES)
            found = torch.cat([self.bench.subject.run(self._batch(part), [EXACT])[EXACT][:, 0].cpu() for part in parts])
        return F.normalize(found.float(), dim=1)

    def rises(
        self, units: Units, groups: Sequence[Mapping[int, float]], texts: Float[Tensor, "texts d_joint"] | None = None
    ) -> Float[Tensor, "groups texts"]:
        """Return by how much the cosine with every text rises when units of a blank image are boosted together.

        A group gives the share of its maximum on the sample that each of its units is set to, at all positions of the
        image, the class token's too. Texts are the words if none are given; the words' mean is taken off them, as in
        `Words`.
        """
        blank_image, name = blank(self.bench.subject, self.bench.inputs), self.member.writes.hookpoint

        def embedded(n: int, edit: Edit) -> Float[Tensor, "n d_joint"]:
            batch = Batch(first_example=0, images=blank_image.expand(n, -1, -1, -1).contiguous())
            output: Any = self.bench.subject.forward(batch, {name: edit})
            return output.image.float().cpu()

        found: dict[str, Activation] = {}
        before = embedded(1, record(found, name))
        with torch.no_grad():
            codes = units.dictionary.encode(found[name][0].float())
        now, maximum = codes.dense().cpu(), units.responses.maximum.float()
        deviation = 1.0 if codes.row_deviation is None else codes.row_deviation.cpu()
        directions, after = units.dictionary.W_dec.detach().float().cpu(), []
        for part in chunks(list(groups), BATCH_IMAGES):
            added = torch.zeros(len(part), len(now), directions.shape[1])
            for into, group in zip(added, part, strict=True):
                members, shares = list(group), torch.tensor(list(group.values()))
                into += deviation * (shares * maximum[members] - now[:, members]) @ directions[members]
            after.append(embedded(len(part), lambda x, added=added: x + added.to(x)))
        return (torch.cat(after) - before) @ (self.words.directions if texts is None else texts).T

    def _batch(self, examples: Int[Tensor, " n"]) -> Batch:
        batches = [self.bench.inputs.batch(number, number + 1) for number in examples.tolist()]
        return only_modality(stacked(batches), self.member.reads)


def attributed(
    subject: Subject, hookpoint: str, dictionaries: Sequence[Dictionary], batches: Sequence[Batch]
) -> list[Float[Tensor, "units d_joint"]]:
    """Return the direct attribution of units to every coordinate of the image's embedding, a mean over images.

    One gradient per coordinate and batch serves all units of all dictionaries, as sum_r z_rj <d_j, g_r> is the product
    of d_j with sum_r z_rj g_r.
    """
    found: list[list[Tensor]] = [[] for _ in dictionaries]
    for batch in batches:
        leaf: dict[str, Tensor] = {}

        def edit(x: Activation, leaf: dict[str, Tensor] = leaf) -> Activation:
            leaf["x"] = x.detach().clone().requires_grad_(True)
            return leaf["x"]

        _, output = passed(subject, batch, {hookpoint: edit}, [], to_end=True, grad=True)
        keep, image = trained_rows(subject, batch, hookpoint).to(leaf["x"].device), output.image
        written = [Written(one, leaf["x"].detach()[keep].float()) for one in dictionaries]
        totals = [[] for _ in dictionaries]
        for coordinate in range(image.shape[1]):
            (grad,) = torch.autograd.grad(image[:, coordinate].sum(), leaf["x"], retain_graph=True)
            for into, one in zip(totals, written, strict=True):
                into.append(one.along(grad[keep].float()))
        for into, total in zip(found, totals, strict=True):
            into.append(torch.stack(total, 1))
    n_images = sum(map(len, batches))
    return [torch.stack(parts).sum(0).cpu() / n_images for parts in found]


class Written:
    """What units write into some vectors."""

    def __init__(self, dictionary: Dictionary, x: Float[Tensor, "rows d_in"]) -> None:
        self.x = x if isinstance(dictionary, Identity) else None
        if self.x is None:
            self.directions = dictionary.W_dec.detach().to(x)
            with torch.no_grad():
                codes = dictionary.encode(x)
            values = codes.values.float()
            if codes.row_deviation is not None:
                values = values * codes.row_deviation[:, 0].float()[codes.rows]
            at = torch.stack([codes.indices.long(), codes.rows])
            size = (dictionary.d_sae, len(x))
            self.codes = torch.sparse_coo_tensor(at, values, size, check_invariants=True).coalesce()

    def along(self, grad: Float[Tensor, "rows d_in"]) -> Float[Tensor, " units"]:
        """Return the sum over vectors of what each unit writes times a gradient there."""
        if self.x is not None:
            return (self.x * grad).sum(0)
        return (torch.sparse.mm(self.codes, grad) * self.directions).sum(1)


def blank(subject: Any, inputs: Any) -> Tensor:
    """Return one image of the mean colour that the subject's preprocessing takes off: [1 3 height width], uint8."""
    like = inputs.batch(0, 1).images
    mean = torch.tensor(subject.provenance().get("preprocess", {}).get("mean", (0.5, 0.5, 0.5)))
    return (255 * mean).round().to(torch.uint8).view(1, 3, 1, 1).expand_as(like).contiguous()


def before_selection(units: Units) -> Responses:
    """Return, per item, the largest pre-activation over its rows: what a unit says before any is selected.

    Raw neurons select nothing; theirs are their activations.
    """
    sample, dictionary = units.sample, units.dictionary
    if isinstance(dictionary, Linear):
        return units.responses
    rows = sample.pooled_rows.nonzero()[:, 0]
    item = sample.item[rows]

    @torch.no_grad()
    def columns(chosen: Tensor) -> Tensor:
        out = torch.full((sample.n_items, len(chosen)), -torch.inf)
        for part in torch.arange(len(rows)).split(4096):
            pre = pre_activations(dictionary, sample.x[rows[part]], chosen).cpu()
            out.scatter_reduce_(0, item[part][:, None].expand_as(pre), pre, "amax")
        return out

    return DenseResponses.of(columns, sample.n_items, dictionary.d_sae)
