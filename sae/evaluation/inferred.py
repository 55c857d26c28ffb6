"""Codes by inference: what takes features in superposition apart when they are known, which no linear encoder can."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class InferredConfig(DictionaryConfig):
    """Settings of inferred codes; the directions that explain a row are a tensor."""

    kind: ClassVar[str] = "inferred"


class Inferred(Dictionary):
    """Finds the few non-negative codes that explain a row.

    min_f ||x - f A||^2 / 2 + 0.01 sum f, f >= 0, by accelerated proximal gradient steps (FISTA, Beck and Teboulle
    2009), then least squares on the codes above the threshold. Where few enough directions are active the l1 norm finds
    exactly them (Donoho and Tanner 2005), so the codes are the true ones up to rounding. For toys; nothing trains it.

    Attributes:
        atoms: directions that explain rows, [n d_in]; the first d_sae of them are latents.
        threshold: least code that counts.
    """

    config_type = InferredConfig
    PENALTY, STEPS = 0.01, 100
    atoms: Tensor

    def __init__(self, n_latents: int, atoms: Float[Tensor, "n d_in"], threshold: float) -> None:
        super().__init__(InferredConfig(d_sae=n_latents), atoms.shape[1])
        self.register_buffer("atoms", atoms.clone())
        self.threshold = threshold
        self.requires_grad_(False)

    def select(self, x: Vectors) -> Codes:
        codes = x.new_zeros(len(x), self.d_sae)
        busy = x.any(1)
        codes[busy] = self._infer(x[busy])[:, : self.d_sae]
        return Codes.from_dense(codes)

    def _infer(self, x: Vectors) -> Float[Tensor, "batch n"]:
        aligned, gram = x @ self.atoms.T, self.atoms @ self.atoms.T
        step = 1 / float(torch.linalg.eigvalsh(gram.double())[-1])
        codes = ahead = torch.zeros_like(aligned)
        momentum = 1.0
        for _ in range(self.STEPS):
            last, codes = codes, (ahead - step * (ahead @ gram - aligned + self.PENALTY)).clamp(min=0)
            momentum, before = (1 + math.sqrt(1 + 4 * momentum**2)) / 2, momentum
            ahead = codes + (before - 1) / momentum * (codes - last)
        active = codes > self.threshold
        system = torch.where(active[:, :, None] & active[:, None, :], gram, torch.eye(len(gram)))
        return torch.linalg.solve(system, torch.where(active, aligned, 0))
