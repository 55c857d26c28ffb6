"""A map of a dictionary: latents that write alike lie together, and regions are named by what their latents are."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import ConfigError

N_NEIGHBOURS = 15
MIN_DIST = 0.1
TITLE_WORDS = 3
MOST_REGIONS = 64
_WORD = re.compile(r"[^\W\d_][\w.'-]+")
_SIGN = re.compile(r"[^\w\s·⏎␣]+|\w")


@dataclass(frozen=True)
class Map:
    """Where latents lie.

    Attributes:
        x, y: place in the plane; nan for latents that are left out.
        cluster: number of the region, -1 for latents that are left out.
        clusters: `{"id", "title", "n"}` of every region, the largest first.
    """

    x: Float[np.ndarray, " d_sae"]
    y: Float[np.ndarray, " d_sae"]
    cluster: Int[np.ndarray, " d_sae"]
    clusters: list[dict[str, Any]]

    @property
    def columns(self) -> dict[str, Float[np.ndarray, " d_sae"]]:
        """What a catalog keeps as columns."""
        return {"map_x": self.x, "map_y": self.y, "cluster": self.cluster.astype(np.float32)}


def draw_map(
    W_dec: Float[Tensor, "d_sae d_out"],
    titles: Sequence[str],
    keep: Bool[np.ndarray, " d_sae"] | None = None,
    seed: int = 0,
) -> Map:
    """Lay the rows of a decoder out in the plane by UMAP of their cosines, and part them into regions by k-means.

    The same seed gives the same map on the same machine and library versions. Of the layout only neighbourhoods mean
    something, not distances across the map (McInnes et al. 2018, arXiv 1802.03426). Regions are parts of the plane, for
    finding one's way: a dictionary is spread evenly, and clusters by density are all of it and a few islands. Regions
    of the directions themselves are no purer, and lie scattered over the map.

    Args:
        W_dec: the directions.
        titles: of the latents; the commonest words of a region's latents that are rare elsewhere are its title.
        keep: latents to draw; those that never fire would only be noise.
        seed: of the layout.

    Raises:
        ConfigError: umap-learn is not installed.
    """
    rows = F.normalize(W_dec.detach().float().cpu(), dim=1).numpy()
    drawn = rows.any(1) if keep is None else rows.any(1) & keep
    place = np.full((len(rows), 2), np.nan, dtype=np.float32)
    cluster = np.full(len(rows), -1, dtype=np.int64)
    if drawn.any():
        place[drawn] = laid_out(rows[drawn], seed)
        cluster[drawn] = _regions(place[drawn], seed)
    return Map(place[:, 0], place[:, 1], cluster, _named(cluster, titles))


def laid_out(
    rows: Float[np.ndarray, "drawn d_out"], seed: int, n_neighbours: int = N_NEIGHBOURS, min_dist: float = MIN_DIST
) -> Float[np.ndarray, "drawn 2"]:
    """Lay vectors out in the plane by UMAP of their cosines.

    Args:
        rows: none of them zero.
        seed: of the layout.
        n_neighbours: whose distances are kept; more of them show more of the whole.
        min_dist: how near neighbours may come, in [0, 1]; larger values fill the plane more evenly.

    Raises:
        ConfigError: umap-learn is not installed.
    """
    if len(rows) <= 3:
        # Too few for a graph of neighbours.
        return np.stack([np.arange(len(rows)), np.zeros(len(rows))], 1).astype(np.float32)
    try:
        from umap import UMAP
    except ImportError as cause:
        raise ConfigError("a map needs umap-learn: pip install 'sae-dictionaries[explore]'.") from cause
    settings = {"n_neighbors": min(n_neighbours, len(rows) - 1), "min_dist": min_dist, "metric": "cosine"}
    # Few rows are started at random: the spectral start needs more eigenvectors than they have.
    start = "spectral" if len(rows) > 2 * n_neighbours else "random"
    layout: Any = UMAP(**settings, init=start, random_state=seed, n_jobs=1)
    threads = torch.get_num_threads()
    try:
        return layout.fit_transform(rows).astype(np.float32)
    finally:
        # UMAP leaves OpenMP, and torch with it, as many threads as there are cores.
        torch.set_num_threads(threads)


def _regions(place: Float[np.ndarray, "drawn 2"], seed: int) -> Int[np.ndarray, " drawn"]:
    """Part the plane into regions, numbered from the largest on."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(max(1, round((len(place) / 2) ** 0.5)), MOST_REGIONS)
    settings: dict[str, Any] = {"random_state": seed, "n_init": 3, "batch_size": 4096}
    found = MiniBatchKMeans(count, **settings).fit_predict(place)
    by_size = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.argsort(by_size)[found]


def _named(cluster: Int[np.ndarray, " d_sae"], titles: Sequence[str]) -> list[dict[str, Any]]:
    """Title every region by the words whose share of its latents exceeds their share of all by most.

    Signs and single letters, of which the titles of a language model's latents are full, count only in titles without
    any word.
    """
    words = [set(_WORD.findall(title.lower()) or _SIGN.findall(title.lower())) for title in titles]
    everywhere = Counter(word for some in words for word in some)
    regions = []
    for number in range(int(cluster.max(initial=-1)) + 1):
        members = np.flatnonzero(cluster == number).tolist()
        here = Counter(word for member in members for word in words[member])
        rise = {word: n / len(members) - everywhere[word] / len(titles) for word, n in here.items() if n > 1}
        telling = (word for word in rise if rise[word] > 0)
        chosen = sorted(telling, key=lambda word: (not _WORD.match(word), -rise[word], word))[:TITLE_WORDS]
        # Where no word comes twice, the title of one latent has to do.
        regions.append({"id": number, "title": ", ".join(chosen) or titles[members[0]], "n": len(members)})
    return regions
