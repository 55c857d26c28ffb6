"""What taking latents out really does to latents and outputs further on, and whether that bears out an attribution.

A latent is zeroed wherever it fires in an example: what it writes, z_i W_dec[i], is subtracted, the dictionary's error
and all other latents stay. Its ablation effect on a number is that number in the untouched subject minus that number
without the latent, so it has the sign of what the latent's presence does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.features.circuits.attribution import Activity, passed, pre_activations
from sae.features.circuits.outputs import Outputs
from sae.features.removal import chunks, copied, without, written
from sae.subjects.base import Activation, Subject
from sae.tensors import Batch

SHARE = 0.5
"""Of the attributed size that an ablation has to show."""
QUANTILE = 0.95
"""Of the sizes of the control's effects that an ablation has to exceed."""


@dataclass(frozen=True)
class Targets:
    """Numbers to measure in a run: latents of later dictionaries, each summed over where it fires, and outputs.

    Attributes:
        latents: by dictionary, those to measure.
        activities: of these dictionaries in the untouched subject.
        things: numbers of the outputs to measure.
        outputs: what gives their scores, with the places to look at.
    """

    activities: Mapping[str, Activity]
    latents: Mapping[str, Sequence[int]]
    things: Sequence[int] = ()
    outputs: tuple[Outputs, Bool[Tensor, "example pos"]] | None = None

    def measured(
        self, found: Mapping[str, Activation], output: Any, source: Int[Tensor, " copies"]
    ) -> tuple[Float[Tensor, "copies targets"], Float[Tensor, "copies targets"]]:
        """Return pre-activations and activations of each copy's targets; an output's score stands for both.

        Targets are in the order of `latents`, dictionary by dictionary, and then `things`.
        """
        parts = [
            _latents_of(self.activities[name], chosen, found[self.activities[name].member.reads], source)
            for name, chosen in self.latents.items()
        ]
        if self.outputs is not None:
            outputs, at = self.outputs
            scores = outputs.scores(output, at[source])[:, list(self.things)].float().cpu()
            parts.append((scores, scores))
        before, after = zip(*parts, strict=True)
        return torch.cat(before, dim=1), torch.cat(after, dim=1)


def _latents_of(
    activity: Activity, latents: Sequence[int], x: Activation, source: Int[Tensor, " copies"]
) -> tuple[Float[Tensor, "copies chosen"], Float[Tensor, "copies chosen"]]:
    dictionary, chosen = activity.member.dictionary, torch.tensor(list(latents), dtype=torch.int64)
    fires = torch.stack([activity.grid(latent) > 0 for latent in latents], dim=-1)[source]
    copy, position = fires.any(-1).nonzero(as_tuple=True)
    rows = x[copy.to(x.device), position.to(x.device)].float().to(dictionary.W_dec.device)
    before = pre_activations(dictionary, rows, chosen).cpu()
    codes = dictionary.encode(rows).to("cpu")
    after = torch.stack([codes.column(latent).float() for latent in latents], dim=1)
    out = torch.zeros(2, len(source), len(latents))
    counted = fires[copy, position]
    for into, values in zip(out, (before, after), strict=True):
        into.index_add_(0, copy, torch.where(counted, values, 0.0))
    return out[0], out[1]


@torch.no_grad()
def ablated(
    subject: Subject, batch: Batch, source: Activity, latents: Sequence[int], targets: Targets, batch_examples: int
) -> tuple[Float[Tensor, "latents targets"], Float[Tensor, "latents targets"]]:
    """Return the effect of each latent on every target, on pre-activations and on activations, over all examples.

    Every latent costs a run of each example in which it fires.
    """
    reads = list(dict.fromkeys(targets.activities[name].member.reads for name in targets.latents))
    to_end, everyone = targets.outputs is not None, torch.arange(len(batch))
    clean = targets.measured(*passed(subject, batch, {}, reads, to_end), everyone)
    fires = torch.stack([(source.grid(latent) != 0).any(1) for latent in latents])
    effect = [torch.zeros(len(latents), part.shape[1]) for part in clean]
    for pairs in chunks(fires.nonzero().tolist(), batch_examples):
        numbers, examples = (torch.tensor(one) for one in zip(*pairs, strict=True))
        removed = [latents[number] for number in numbers.tolist()]
        part = written(source.member.dictionary, source.codes, source.keep, examples, removed)
        edits = without(part, [source.member.writes])
        found, output = passed(subject, copied(batch, examples), edits, reads, to_end)
        for into, before, after in zip(effect, clean, targets.measured(found, output, examples), strict=True):
            into.index_add_(0, numbers, before[examples] - after)
    return effect[0], effect[1]


def peers(reach: Float[Tensor, " d_sae"], sources: Sequence[int], n: int, never: Sequence[int] = ()) -> list[int]:
    """Return about n latents that could do as much as the sources, for control: those whose reach is nearest to theirs.

    Args:
        reach: of every latent; those without any are no control.
        sources: each gets the same number of peers, no latent twice.
        n: how many in all; fewer where fewer fire.
        never: latents that are no control.
    """
    free = (reach > 0) & (reach.isfinite())
    free[list({*sources, *never})] = False
    size, found = reach.clamp_min(torch.finfo(reach.dtype).tiny).log(), []
    for _ in range(-(-n // max(1, len(sources)))):
        for latent in sources:
            if len(found) == n or not bool(free.any()):
                return found
            nearest = int((size - size[latent]).abs().masked_fill(~free, torch.inf).argmin())
            free[nearest] = False
            found.append(nearest)
    return found


def threshold(effects: Float[Tensor, "controls targets"]) -> Float[Tensor, " targets"]:
    """Return what an effect has to exceed, the 95th percentile of the control's sizes; infinite without a control."""
    if not len(effects):
        return torch.full((effects.shape[1],), torch.inf)
    return effects.abs().quantile(QUANTILE, dim=0)


def confirmed(attribution: float, ablation: float, above: float) -> bool:
    """Whether an ablation bears out an attribution: same sign, at least half of its size, and above the control."""
    return attribution * ablation > 0 and abs(ablation) >= SHARE * abs(attribution) and abs(ablation) > above
