"""A trained ResNet as the teacher of a transformer: its embedding, and its stages as hints for single blocks.

A transformer that sees few pictures hardly learns to name them, let alone to read: nothing tells it where to look. The
stages of a ResNet do, patch by patch (Romero et al. 2015, *FitNets*).
"""

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HINTS = {1: "layer2", 2: "layer3", 3: "layer4"}
"""Which stage each block of the transformer is to tell, by a linear map of its patches."""


class Teacher(nn.Module):
    """What a student is told about its pictures; `maps` are trained with it and thrown away.

    Args:
        model: the trained model with a ResNet; it is no part of what is trained or saved.
        student: a model with a vision transformer.
        size: side of the pictures in pixels.
    """

    def __init__(self, model: open_clip.CLIP, student: open_clip.CLIP, size: int):
        super().__init__()
        self._model = [model]
        self.told: dict[str, Tensor] = {}
        self.seen: dict[int, Tensor] = {}
        blocks = student.visual.transformer.resblocks
        maps = {}
        with torch.no_grad():
            for name in HINTS.values():
                getattr(model.visual, name).register_forward_hook(self._keeper(self.told, name))
            model.encode_image(torch.zeros(1, 3, size, size))
        for block, name in HINTS.items():
            blocks[block].register_forward_hook(self._keeper(self.seen, block))
            maps[name] = nn.Linear(student.visual.positional_embedding.shape[1], self.told[name].shape[1])
        self.maps = nn.ModuleDict(maps)

    @staticmethod
    def _keeper(where: dict, name: object):
        def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            where[name] = output

        return keep

    def distance(self, images: Tensor, pictured: Tensor) -> Tensor:
        """Return how far the student is from its teacher on pictures that it has just seen.

        Args:
            images: [n, 3, size, size], as the models take them.
            pictured: the student's unit embeddings [n, embed].
        """
        with torch.no_grad():
            wanted = self._model[0].encode_image(images, normalize=True)
        far = 8 * (1 - (pictured * wanted).sum(1)).mean()
        for block, name in HINTS.items():
            told = self.told[name]
            spread, middle = torch.std_mean(told, (0, 2, 3), keepdim=True)
            patches = self.seen[block][:, 1:].transpose(1, 2)
            side = round(patches.shape[2] ** 0.5)
            pooled = F.adaptive_avg_pool2d(patches.unflatten(2, (side, side)), told.shape[2:])
            guess = self.maps[name](pooled.movedim(1, 3)).movedim(3, 1)
            far = far + F.mse_loss(guess, (told - middle) / (spread + 1e-3))
        return far
