"""A dictionary as a notebook shows it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae import notebook

PRODUCTS = 5e9
"""Multiplications that finding near latents may take: some tenths of a second."""
MOST_LATENTS, FEWEST_LATENTS = 512, 16
N_BINS = 40
FIGURES = {"fvu": "FVU in training", "l0": "L0 in training", "dead_fraction": "dead"}
"""Figures of a training run that are shown, by their names there."""


def dictionary_html(
    settings: Mapping[str, Any],
    d_in: int,
    d_out: int | None,
    provenance: Mapping[str, Any],
    W_dec: Float[Tensor, "d_sae d_out"],
) -> str:
    """Return kind, sizes, origin, figures of the training, how near latents lie to one another, and how to go on.

    Args:
        settings: the config as plain data.
        d_in: width of what is read.
        d_out: width of what a transcoder writes; None for a dictionary that writes what it reads.
        provenance: what its file says of where it comes from.
        W_dec: its directions.
    """
    origin = [str(provenance[name]) for name in ("subject", "hookpoint") if provenance.get(name)]
    sizes = [("latents", f"{len(W_dec):,}"), ("reads", f"{d_in:,}")]
    sizes += [] if d_out is None else [("writes", f"{d_out:,}")]
    plain = {name: value for name, value in settings.items() if name not in ("kind", "d_sae")}
    own = [(name.replace("_", " "), _told(value)) for name, value in plain.items() if _is_shown(value)]
    steps = "sae catalog DICTIONARY STORE --out CATALOG   # a card of every latent\nsae serve CATALOG"
    return notebook.panel(
        f"{settings['kind']} dictionary",
        " ".join(origin) or "of unknown origin",
        notebook.facts([*sizes, *_figures(provenance), *own]),
        _nearness(W_dec),
        notebook.code(steps),
    )


def _figures(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what its training said of it, where its file tells."""
    n_vectors, figures = provenance.get("n_vectors_trained"), provenance.get("metrics")
    found = [("vectors in training", f"{n_vectors:,}")] if isinstance(n_vectors, int) else []
    for name, title in FIGURES.items():
        value = figures.get(name) if isinstance(figures, Mapping) else None
        if isinstance(value, int | float):
            found.append((title, f"{value:.1%}" if name == "dead_fraction" else notebook.number(value)))
    return found


def _nearness(W_dec: Float[Tensor, "d_sae d_out"]) -> str:
    """Draw the cosine of latents with the one that writes most nearly the same."""
    cosines = nearest_cosines(W_dec)
    if not len(cosines):
        return ""
    counts = torch.histc(cosines.clamp(0, 1), N_BINS, 0, 1).int().tolist()
    some = "" if len(cosines) == len(W_dec) else f", {len(cosines):,} latents"
    edges = [i / N_BINS for i in range(N_BINS + 1)]
    label = f"cosine with the nearest other latent{some}; median {notebook.number(float(cosines.median()))}"
    return notebook.histogram(edges, counts, label)


@torch.no_grad()
def nearest_cosines(W_dec: Float[Tensor, "d_sae d_out"]) -> Float[Tensor, " some"]:
    """Return the largest cosine of rows with any other row: of all, or of as many, evenly spread, as can be done fast.

    Rows of zeros, or that are not finite, are left out.
    """
    rows = W_dec[W_dec.isfinite().all(1) & W_dec.any(1)]
    if len(rows) < 2:
        return torch.zeros(0)
    at_once = min(max(int(PRODUCTS / rows.numel()), FEWEST_LATENTS), MOST_LATENTS)
    chosen = torch.arange(0, len(rows), -(-len(rows) // at_once), device=rows.device)
    unit = F.normalize(rows.float(), dim=1)
    cosine = unit[chosen] @ unit.T
    cosine[torch.arange(len(chosen), device=rows.device), chosen] = -torch.inf
    return cosine.amax(1).cpu()


def _is_shown(value: object) -> bool:
    return value is not None and value is not False and isinstance(value, bool | int | float | str)


def _told(value: object) -> str:
    return notebook.number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
