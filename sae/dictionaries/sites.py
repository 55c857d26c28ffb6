"""Where the coordinates of a dictionary's vectors come from: one hookpoint, or several side by side.

A dictionary of several sites (a crosscoder) reads and writes their vectors as one. Its `dictionary.json` lists them in
order under `provenance.sites`, and what a transcoder writes under `provenance.target_sites`:

    {"subject": ..., "hookpoint": ..., "store": ..., "width": 512, "scale": 0.44}

`scale` is sqrt(width) / mean norm of the vectors that were trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.errors import DictionaryError


@dataclass(frozen=True)
class Site:
    """A hookpoint of a subject, and the columns of the vectors that are its own; None is what a file does not say."""

    subject: str | None
    hookpoint: str
    columns: slice
    scale: float | None

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns.stop - self.columns.start

    @property
    def mean_norm(self) -> float:
        """Mean norm of the vectors that were trained on.

        Raises:
            DictionaryError: the file does not say it.
        """
        if self.scale is None:
            raise DictionaryError(f"site {self.hookpoint}: the dictionary's provenance gives no scale.")
        return self.width**0.5 / self.scale


def input_sites(dictionary: Dictionary) -> tuple[Site, ...]:
    """Return the sites that a dictionary reads.

    Raises:
        DictionaryError: the provenance names none, or their widths are not the dictionary's.
    """
    return _sites(dictionary.provenance, "sites", dictionary.d_in)


def output_sites(dictionary: Dictionary) -> tuple[Site, ...]:
    """Return the sites that a dictionary writes, which are those it reads unless it is a transcoder.

    Raises:
        DictionaryError: the provenance names none, or their widths are not the dictionary's.
    """
    return _sites(dictionary.provenance, "target_sites" if dictionary.is_transcoder else "sites", dictionary.d_out)


def hookpoints_read(dictionary: Dictionary) -> tuple[str, ...]:
    """Return the hookpoints that a dictionary of one subject reads side by side.

    Raises:
        DictionaryError: it reads several subjects, or its provenance names no site.
    """
    sites = input_sites(dictionary)
    if len({site.subject for site in sites}) > 1:
        listed = ", ".join(f"{site.subject} {site.hookpoint}" for site in sites)
        raise DictionaryError(f"{dictionary!r}: reads several subjects ({listed}); this is for dictionaries of one.")
    return tuple(site.hookpoint for site in sites)


def target_hookpoint(dictionary: Dictionary) -> str | None:
    """Return what a transcoder writes, several hookpoints joined by " + "; None if its provenance does not say."""
    sites = dictionary.provenance.get("target_sites", ())
    return " + ".join(site["hookpoint"] for site in sites) or dictionary.provenance.get("target_hookpoint")


def site_decoders(dictionary: Dictionary) -> list[Float[Tensor, "d_sae _"]]:
    """Return the columns of `W_dec` that write each site, as views."""
    return [dictionary.W_dec.detach()[:, site.columns] for site in output_sites(dictionary)]


def relative_norms(dictionary: Dictionary) -> Float[Tensor, "sites d_sae"]:
    """Return how much of each latent lies at each site: shares that sum to 1 over the sites.

    The norm of the latent's direction at a site counts in units of the site's mean norm, so that a site of large
    vectors has no advantage. Of two sites, such as one hookpoint before and after fine-tuning, the share of the second
    is the number on the axis of a model-diffing plot: 0 and 1 are latents of one model alone, 1/2 a shared one (Lindsey
    et al. 2024, Sparse crosscoders for cross-layer features and model diffing). A latent that writes nothing has 0.
    """
    sites = output_sites(dictionary)
    norms = [part.norm(dim=1) / site.mean_norm for part, site in zip(site_decoders(dictionary), sites, strict=True)]
    stacked = torch.stack(norms)
    return stacked / stacked.sum(0).clamp_min(torch.finfo(stacked.dtype).tiny)


def _sites(provenance: Mapping[str, Any], key: str, width: int) -> tuple[Site, ...]:
    # Files of older versions and of other libraries name a single hookpoint, or none.
    single = provenance.get("target_hookpoint" if key == "target_sites" else "hookpoint")
    entries = provenance.get(key) or ([{**provenance, "hookpoint": single, "width": width}] if single else [])
    if not entries:
        raise DictionaryError(f"the dictionary's provenance lists no {key}, so its vectors are of unknown origin.")
    ends = [0, *accumulate(entry["width"] for entry in entries)]
    if ends[-1] != width:
        raise DictionaryError(f"{key}: {[entry['width'] for entry in entries]} wide, the dictionary {width}.")
    return tuple(
        Site(entry.get("subject"), entry["hookpoint"], slice(start, start + entry["width"]), entry.get("scale"))
        for entry, start in zip(entries, ends, strict=False)
    )
