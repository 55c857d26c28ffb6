"""TopK with one half of it kept as it was drawn: what learning only the other half gives.

Controls of the "sanity checks" kind: a dictionary whose decoder, or whose encoder, never learned a direction has not
found any, so whatever it scores is not owed to features that were found. Everything else trains as in TopK, the
auxiliary loss for dead latents included.
"""

from dataclasses import dataclass
from typing import ClassVar

from sae.dictionaries.topk import TopK, TopKConfig


@dataclass(frozen=True, kw_only=True)
class FrozenDecoderConfig(TopKConfig):
    """Settings of TopK with a frozen decoder: those of TopK."""

    kind: ClassVar[str] = "frozen_decoder"


class FrozenDecoder(TopK):
    """Latents write in random directions; the encoder, its biases and `b_dec` learn to make the best of them."""

    config_type = FrozenDecoderConfig

    def __init__(self, config: FrozenDecoderConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.W_dec.requires_grad_(False)

    def after_step(self) -> None:
        """Do nothing: rows that do not move keep their norm, to the last bit."""


@dataclass(frozen=True, kw_only=True)
class FrozenEncoderConfig(TopKConfig):
    """Settings of TopK with a frozen encoder: those of TopK."""

    kind: ClassVar[str] = "frozen_encoder"


class FrozenEncoder(TopK):
    """Latents read random directions; the decoder learns, and so do the biases, which only say how easily one fires."""

    config_type = FrozenEncoderConfig

    def __init__(self, config: FrozenEncoderConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.W_enc_rows.requires_grad_(False)
