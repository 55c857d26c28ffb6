"""First-order effects of latents on latents and outputs of the same subject: gradients back, tangents forward.

With the vectors at a hookpoint written as x = sum_i z_i W_dec[i] + b_dec + error, every z_i and the error held fixed,
the effect of latent i on a number T further on is to first order

    sum over positions q of  z_i(q) * dT/dz_i(q)  =  sum_q  z_i(q) * <W_dec[i], dT/dx(q)>

through all that lies between in the subject as it is: its attention patterns, norms and other dictionaries' hookpoints
are neither frozen nor replaced. One gradient of T gives it for all latents i of any number of dictionaries before T,
and one tangent along z_i W_dec[i] for all T behind i (forward-mode differentiation, which is exact as well).

This is attribution patching (Nanda 2023; Syed, Rager, Conmy 2023, arXiv 2310.10348) with zero as the other input, of
latents as in Marks et al. 2024 (arXiv 2403.19647).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.dictionaries.sites import Site, input_sites, output_sites
from sae.errors import CatalogError
from sae.evaluation.splicing import trained_rows
from sae.features.removal import strengths
from sae.subjects.base import Activation, Edit, Subject, find_hookpoint
from sae.subjects.splice import record
from sae.tensors import Batch

_ENTRIES = 1 << 14
"""Entries whose directions are held at a time."""


@dataclass(frozen=True)
class Member:
    """A dictionary in its subject: the hookpoint that it reads, and the one that it writes."""

    name: str
    dictionary: Dictionary
    reads: str
    writes: Site

    @classmethod
    def of(cls, name: str, dictionary: Dictionary, subject: Subject) -> Self:
        """Find where a dictionary is at work.

        Raises:
            CatalogError: it reads or writes several hookpoints, or is of another subject.
            HookpointError: the subject has no such hookpoint.
        """
        reads, writes = input_sites(dictionary), output_sites(dictionary)
        if len(reads) > 1 or len(writes) > 1:
            listed = ", ".join(dict.fromkeys(site.hookpoint for site in (*reads, *writes)))
            raise CatalogError(
                f"{name}: is at work on several hookpoints ({listed}); circuits take dictionaries that read one and "
                "write one, transcoders included."
            )
        for site in (*reads, *writes):
            if site.subject not in (None, subject.id):
                raise CatalogError(f"{name}: is of the subject {site.subject}; this circuit is in {subject.id}.")
            find_hookpoint(subject.hookpoints(), site.hookpoint, subject.id)
        return cls(name, dictionary.eval(), next(iter(reads)).hookpoint, next(iter(writes)))


@dataclass(frozen=True)
class Activity:
    """What the latents of a dictionary do on some examples.

    Attributes:
        member: the dictionary.
        keep: positions that are encoded: those of the kinds it was trained on.
        codes: at these, in their order.
    """

    member: Member
    keep: Bool[Tensor, "example pos"]
    codes: Codes

    @cached_property
    def places(self) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " nnz"]]:
        """Example and position of every entry."""
        example, position = self.keep.nonzero(as_tuple=True)
        return example[self.codes.rows], position[self.codes.rows]

    @cached_property
    def strength(self) -> Float[Tensor, " nnz"]:
        """By how much an entry's direction lies in its vector."""
        deviation, values = self.codes.row_deviation, self.codes.values.float()
        return values if deviation is None else values * deviation[:, 0].float()[self.codes.rows]

    def grid(self, latent: int) -> Float[Tensor, "example pos"]:
        """Return the strength of one latent at every position, zero where it is silent."""
        out = torch.zeros(self.keep.shape)
        out[self.keep] = strengths(self.codes, latent)
        return out

    def total(self, per_entry: Float[Tensor, " nnz"]) -> Float[Tensor, " d_sae"]:
        """Add up over the entries of each latent."""
        return torch.zeros(self.codes.d_sae).index_add_(0, self.codes.indices.long(), per_entry)


class _ReachedError(Exception):
    """Leaves the forward pass after the last activation that is needed."""


def passed(
    subject: Subject, batch: Batch, edits: Mapping[str, Edit], reads: Sequence[str], to_end: bool, grad: bool = False
) -> tuple[dict[str, Activation], Any]:
    """Run with edits; return activations, and the output unless the run may stop after the last of them.

    Raises:
        CatalogError: a hookpoint is not reached, or is edited and read at once.
    """
    found: dict[str, Activation] = {}

    def reader(name: str) -> Edit:
        keep = record(found, name)

        def read(x: Activation) -> Activation:
            keep(x)
            if not to_end and len(found) == len(set(reads)):
                raise _ReachedError
            return x

        return read

    if both := set(edits) & set(reads):
        raise CatalogError(f"{subject.id}: {', '.join(sorted(both))} cannot be changed and measured at once.")
    output = None
    try:
        output = subject.forward(batch, {**edits, **{name: reader(name) for name in reads}}, grad=grad)
    except _ReachedError:
        return found, None
    if missing := set(reads) - set(found):
        raise CatalogError(f"{subject.id}: these inputs do not reach {', '.join(sorted(missing))}.")
    return found, output


def observe(subject: Subject, batch: Batch, members: Sequence[Member]) -> dict[str, Activity]:
    """Encode the examples of a batch with every dictionary."""
    reads = list(dict.fromkeys(member.reads for member in members))
    found = subject.run(batch, reads)
    activities = {}
    for member in members:
        keep = trained_rows(subject, batch, member.reads).cpu()
        x, device = found[member.reads], member.dictionary.W_dec.device
        with torch.no_grad():
            codes = member.dictionary.encode(x[keep.to(x.device)].float().to(device))
        activities[member.name] = Activity(member, keep, codes.to("cpu"))
    return activities


def pre_activations(
    dictionary: Dictionary, x: Float[Tensor, "rows d_in"], latents: Int[Tensor, " chosen"]
) -> Float[Tensor, "rows chosen"]:
    """Return what the encoder's linear part gives, before anything is selected; gradients flow."""
    x = x.to(dictionary.W_dec.device, torch.float32)
    latents = latents.to(x.device)
    centred = dictionary.normalised(x) - dictionary.centre
    return centred @ dictionary.W_enc_rows[latents].T + dictionary.b_enc[latents]


def gradients(
    subject: Subject, batch: Batch, target: Activity, latent: int, hookpoints: Sequence[str]
) -> dict[str, Float[Tensor, "example pos d_in"]]:
    """Return the gradient of a latent's pre-activation, added up over where it fires, at hookpoints before it.

    Raises:
        CatalogError: nothing flows from a hookpoint to where the latent is read.
    """
    leaves: dict[str, Tensor] = {}

    def leaf(name: str) -> Edit:
        def add(x: Activation) -> Activation:
            leaves[name] = torch.zeros_like(x, requires_grad=True)
            return x + leaves[name]

        return add

    read = target.member.reads
    found, _ = passed(subject, batch, {name: leaf(name) for name in hookpoints}, [read], to_end=False, grad=True)
    fires = target.grid(latent) > 0
    with torch.enable_grad():
        x = found[read][fires.to(found[read].device)].float()
        total = pre_activations(target.member.dictionary, x, torch.tensor([latent])).sum()
    if not total.requires_grad:
        raise CatalogError(f"{subject.id}: nothing flows from {', '.join(hookpoints)} to {read}.")
    grads = torch.autograd.grad(total, [leaves[name] for name in hookpoints], allow_unused=True)
    out = {}
    for name, grad in zip(hookpoints, grads, strict=True):
        if grad is None:
            raise CatalogError(f"{subject.id}: nothing flows from {name} to {read}.")
        out[name] = grad.float().cpu()
    return out


def attributions(
    source: Activity, gradient: Float[Tensor, "example pos d_out"]
) -> tuple[Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """Return each latent's first-order effect, and its reach: what it would be if it pointed along the gradient."""
    directions = source.member.dictionary.W_dec.detach().float().cpu()
    along = source.strength * _dots(gradient[source.keep], source.codes, directions)
    most = source.strength.abs() * gradient.norm(dim=-1)[source.places]
    return source.total(along), source.total(most) * directions.norm(dim=1)


@torch.no_grad()
def tangents(
    subject: Subject, batch: Batch, source: Activity, latent: int, reads: Sequence[str], to_end: bool
) -> tuple[dict[str, Activation], Any]:
    """Run with what a latent writes as tangent; what is returned are dual numbers only within `differentiating`."""
    member = source.member
    along = source.grid(latent)[..., None] * member.dictionary.W_dec[latent].detach().float().cpu()

    def dual(x: Activation) -> Activation:
        return forward_ad.make_dual(x.clone(), along.to(x))

    return passed(subject, batch, {member.writes.hookpoint: dual}, reads, to_end)


def effects(target: Activity, x: Activation) -> Float[Tensor, " d_sae"]:
    """Return what a tangent does to the pre-activations of all latents, each added up over where it fires."""
    dictionary = target.member.dictionary
    rows = dictionary.normalised(x[target.keep.to(x.device)].float().to(dictionary.W_dec.device))
    along = _dots(tangent_of(rows), target.codes, dictionary.W_enc_rows.detach().float().cpu())
    return target.total(torch.where(target.strength > 0, along, 0.0))


def tangent_of(x: Tensor) -> Tensor:
    """Return the tangent of a dual number, on the CPU.

    Raises:
        CatalogError: it has none, for nothing flows to it.
    """
    tangent = forward_ad.unpack_dual(x).tangent
    if tangent is None:
        raise CatalogError("nothing flows from the latent to what is measured.")
    return tangent.float().cpu()


@contextmanager
def differentiating() -> Iterator[None]:
    """Make forward-mode differentiation possible: attention by the formula, for fused kernels know no tangents."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _dots(
    vectors: Float[Tensor, "batch d"], codes: Codes, directions: Float[Tensor, "d_sae d"]
) -> Float[Tensor, " nnz"]:
    """Return the product of every entry's vector with its latent's direction."""
    rows, latents = codes.rows.split(_ENTRIES), codes.indices.long().split(_ENTRIES)
    parts = [(vectors[i] * directions[j]).sum(1) for i, j in zip(rows, latents, strict=True)]
    return torch.cat(parts) if parts else vectors.new_zeros(0)


def only_modality(batch: Batch, hookpoint: str) -> Batch:
    """Leave out what a tower does not read, so that it does not run: texts for images, and images for texts."""
    if batch.images is None or batch.tokens is None:
        return batch
    if hookpoint.startswith("visual."):
        return replace(batch, tokens=None, attended=None, kind=None)
    return replace(batch, images=None)
