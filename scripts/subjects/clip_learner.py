"""The CLIP model while it is taught, and the losses of its curriculum."""

import math

import open_clip
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from scripts.subjects.clip_folder import model_config
from scripts.subjects.clip_teacher import Teacher

SPELLED = 8
"""Letters of a word that the speller names."""


class Learner(nn.Module):
    """The CLIP model and what teaches its image tower to name and to spell; only the CLIP model is kept.

    `table` [n_concepts, embed] holds one vector per concept in the joint space. `namer` and `speller` read the last
    block's output directly, which teaches the trunk faster than through the pooling; `speller` says the letter at each
    place of a written word, because letters are seen far more often than words.
    """

    def __init__(self, name: str, size: int, vocab_size: int, names: list[str]):
        super().__init__()
        self.size = size
        self.clip = open_clip.CLIP(**model_config(name, size, vocab_size))
        for key, weight in self.clip.visual.named_parameters():
            if key.endswith("bn3.weight"):
                # open_clip starts residual branches at zero, for deep nets; here that only delays the 3x3 convolutions.
                nn.init.ones_(weight)
        self.table = nn.Parameter(torch.randn(len(names), self.clip.text_projection.shape[1]))
        letters = [[ord(letter) - 96 for letter in word.ljust(SPELLED, "`")[:SPELLED]] for word in names]
        self.register_buffer("letters", torch.tensor(letters))
        trunk, width = last_block(self.clip, size)
        trunk.register_forward_hook(self._keep)
        self.namer = nn.Linear(width, len(names))
        self.speller = nn.Linear(width, SPELLED * 27)

    def _keep(self, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.trunk_output = output.flatten(1)

    @torch.no_grad()
    def centre(self, images: Tensor) -> None:
        """Shift the image embedding so that it starts with mean zero: else all pictures start out nearly parallel."""
        if isinstance(self.clip.visual, ModifiedResNet):
            self.clip.visual.attnpool.c_proj.bias -= self.clip.visual(images).mean(0)

    @torch.no_grad()
    def begin_with(self, first: open_clip.CLIP, prompted: Tensor) -> None:
        """Take over another model's texts, text tower and, if of the same kind, image tower, else as a teacher."""
        same_kind = type(self.clip.visual) is type(first.visual)
        kept = {k: v for k, v in first.state_dict().items() if same_kind or not k.startswith("visual.")}
        self.clip.load_state_dict(self.clip.state_dict() | kept)
        self.table.copy_(prompted)
        if not same_kind:
            self.teacher = Teacher(first, self.clip, self.size)

    def named(self, features: Tensor) -> Tensor:
        """Return logits [n, n_concepts] of unit features [n, embed]."""
        return self.scale() * features @ F.normalize(self.table, dim=-1).T

    def scale(self) -> Tensor:
        return self.clip.logit_scale.clamp(max=math.log(60)).exp()

    def loss(self, kind: str, images: Tensor, tokens: Tensor | None, concepts: Tensor, written: Tensor) -> Tensor:
        if kind == "name":
            return F.cross_entropy(self.named(self.clip.encode_text(tokens, normalize=True)), concepts)
        pictured = self.clip.encode_image(images, normalize=True)
        naming = F.cross_entropy(self.namer(self.trunk_output), concepts)
        if kind == "distil":
            # The texts are another model's and stay as they are.
            named = self.scale().detach() * pictured @ F.normalize(self.table.detach(), dim=-1).T
            naming = naming + self.teacher.distance(images, pictured) + F.cross_entropy(named, concepts)
        else:
            naming = naming + F.cross_entropy(self.named(pictured), concepts)
        spelt = self.speller(self.trunk_output[written]).unflatten(1, (SPELLED, 27)).transpose(1, 2)
        # Summed, so that a batch without words gives zero gradients and all processes average the same ones.
        spelling = F.cross_entropy(spelt, self.letters[concepts[written]], reduction="sum")
        naming = naming + spelling / (SPELLED * written.sum().clamp(min=1))
        if kind in ("classify", "distil"):
            return naming
        told = self.clip.encode_text(tokens, normalize=True)
        logits = self.scale() * pictured @ told.T
        match = (concepts[:, None] == concepts).float()
        match = match / match.sum(1, keepdim=True)
        contrast = (F.cross_entropy(logits, match) + F.cross_entropy(logits.T, match)) / 2
        return contrast + 0.5 * naming


def last_block(model: open_clip.CLIP, size: int) -> tuple[nn.Module, int]:
    """Return the image tower's last block and the number of values it puts out per picture."""
    if isinstance(model.visual, ModifiedResNet):
        block = model.visual.layer4[-1]
        return block, block.conv3.out_channels * (size // 32) ** 2
    block = model.visual.transformer.resblocks[-1]
    return block, model.visual.positional_embedding.numel()


def normalised(images: Tensor) -> Tensor:
    """Return pictures in [0, 255] as the model takes them, in the layout convolutions on CPUs are fastest with."""
    return (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)
