"""A picture as the latents see it: which fire on it, and where."""

import base64
from collections.abc import Mapping
from typing import Any

from sae.features.cards import rounded
from sae.features.live.given import FORMATS, frame_of, image_batches, png
from sae.features.live.loaded import Loaded
from sae.features.live.reading import read
from sae.tensors import Kind

MOST_LATENTS = 40


class ImageAsk:
    """Answers {"image": base64 of a picture's file} with the latents that fire on it.

    >>> ImageAsk(loaded).answer(Path("kite.png").read_bytes())  # doctest: +SKIP

    Args:
        loaded: a catalog of a dictionary that reads images.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        subject: Any = loaded.subject
        self._grid = None if loaded.pooled else subject.patch_grid(loaded.grid)
        self.about = {"grid": None if self._grid is None else list(self._grid), "formats": list(FORMATS)}

    @classmethod
    def of(cls, loaded: Loaded) -> "ImageAsk | None":
        """Return what answers; None where the dictionary reads text."""
        return cls(loaded) if loaded.reads_images and hasattr(loaded.subject, "preprocess") else None

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        return self.answer(question.get("image", ""))

    def answer(self, image: str | bytes) -> dict[str, Any]:
        """Return the latents that fire on a picture, strongest share of their maximum first.

        Args:
            image: the bytes of its file, or their base64.

        Returns:
            `frame`: the picture as the subject sees it, base64 of a PNG file; `grid`: rows and columns of patches, or
            null where one vector stands for the image; `latents`: of each `index`, `title`, `value`, its largest
            activation over patches, `share` of the largest in the catalog (null where that is not known) and `values`
            at every patch (null without a grid).

        Raises:
            InputsError: it is no picture that can be read, or too large.
        """
        loaded = self.loaded
        frame = frame_of(image, loaded.subject)
        found = read(loaded, image_batches([frame]))
        dense = found.codes.dense()
        peak = dense[found.pooled_rows].amax(0)
        share = {latent: loaded.share(latent, float(peak[latent])) for latent in peak.gt(0).nonzero()[:, 0].tolist()}
        order = sorted(share, key=lambda latent: (-(share[latent] or 0.0), -float(peak[latent])))[:MOST_LATENTS]
        patches = dense[found.kind == int(Kind.PATCH)]
        return {
            "frame": base64.b64encode(png(frame)).decode(),
            "grid": None if self._grid is None else list(self._grid),
            "n_fired": len(share),
            "latents": [
                {
                    "index": latent,
                    "title": loaded.title(latent),
                    "value": rounded(float(peak[latent])),
                    "share": None if share[latent] is None else rounded(share[latent] or 0.0),
                    "values": None if self._grid is None else [rounded(one) for one in patches[:, latent].tolist()],
                }
                for latent in order
            ],
        }
