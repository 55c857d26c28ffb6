"""CLIP models as subjects, both towers: everything that open_clip loads, by name and tag, from the hub or a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from sae.errors import HookpointError, SubjectError, nearest
from sae.subjects.base import Activation, Edit, Hookpoint, find_hookpoint
from sae.subjects.clip_files import check_vocabulary, hash_weights, read_folder
from sae.subjects.clip_inputs import Frames, TextMarks
from sae.subjects.clip_sites import blocks_up_to, editing, reading, skipping
from sae.subjects.clip_towers import PatchGrid, text_sites, visual_sites
from sae.subjects.untrained import dead_leaves, drawing, settle_batch_norms
from sae.tensors import Batch, Kind, Rows

_TOWERS = ("visual", "text")
_PROMPTS_AT_ONCE = 256
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ClipOutput:
    """Embeddings of unit length, and what turns their cosines into logits.

    `logit_scale` is a logarithm, as in the model's weights; `logit_bias` is 0 except in SigLIP models. The embeddings
    of a tower that the batch had no input for are None.
    """

    image: Float[Tensor, "example d_in"] | None
    text: Float[Tensor, "example d_in"] | None
    logit_scale: Float[Tensor, ""]
    logit_bias: Float[Tensor, ""]

    def logits(self, classes: Float[Tensor, "n_classes d_in"] | None = None) -> Float[Tensor, "example n_classes"]:
        """Score every image against unit vectors of classes, by default against the texts of the batch."""
        targets = self.text if classes is None else classes
        assert self.image is not None and targets is not None, "logits need images and something to compare them with"
        return self.logit_scale.exp() * self.image @ targets.T + self.logit_bias


class ClipSubject:
    """A frozen CLIP model: hookpoints in both towers, preprocessing, tokenizing, zero-shot classification.

    Hookpoints are named as in TransformerLens behind `visual.` or `text.`; `visual.embedding` and `text.embedding` are
    what the towers yield in the joint space, before it is normalised.

    Args:
        subject_id: the id, as manifests record it.
        model: an open_clip model on the CPU, in float32.
        tokenizer: its open_clip tokenizer.
        transform: its open_clip evaluation transform.
        config: the model config it was made from.
        device: where it is to run.
        dtype: of its weights and activations.
    """

    kind = "clip"

    def __init__(
        self,
        subject_id: str,
        model: Any,
        tokenizer: Any,
        transform: Any,
        config: Mapping[str, Any],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.id = subject_id
        self.device, self.dtype = torch.device(device), dtype
        self.weights_sha256 = hash_weights(model)
        self.quick_gelu = bool(config.get("quick_gelu", False))
        self.tokenizer = tokenizer
        self._marks = TextMarks(tokenizer)
        self._frames = Frames(model.visual.preprocess_cfg, transform)
        # Taken before the cast: in bf16 the scale would be off by a percent after its exponential.
        self._logit_scale = model.logit_scale.detach().reshape(()).to(device, torch.float32)
        bias = torch.zeros(()) if model.logit_bias is None else model.logit_bias.detach()
        self._logit_bias = bias.reshape(()).to(device, torch.float32)
        self.model = model.eval().requires_grad_(False).to(self.device, dtype)

        images, self._grids = visual_sites(model.visual, self._frames.size)
        texts = text_sites(getattr(model, "text", model))
        self._sites = {site.hookpoint.name: site for site in images + texts}
        hookpoints = [
            *[site.hookpoint for site in images],
            Hookpoint("visual.embedding", config["embed_dim"], "visual.pooled"),
            *[site.hookpoint for site in texts],
            Hookpoint("text.embedding", config["embed_dim"], "text.pooled"),
        ]
        self._hookpoints = {hookpoint.name: hookpoint for hookpoint in hookpoints}

    @classmethod
    def from_id(
        cls,
        subject_id: str,
        source: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        untrained: bool = False,
    ) -> Self:
        """Load a model.

        Args:
            subject_id: the id, as manifests record it.
            source: NAME/TAG, hf-hub:NAME, or a folder with open_clip_config.json and open_clip_model.safetensors.
            device: where the model runs.
            dtype: of its weights and activations; by default float32.
            untrained: draw the weights anew, as open_clip initialises them, and let the statistics of batch norms
                settle on synthetic pictures.

        Raises:
            SubjectError: nothing loadable is there, or the checkpoint wants QuickGELU and the model has none.
        """
        import open_clip

        name, tag, overrides, tokenizer_settings = str(source), None, {}, {}
        if Path(source).is_dir():
            name, overrides, tokenizer_settings = read_folder(subject_id, Path(source).resolve())
        elif not name.startswith("hf-hub:"):
            name, tag = _by_tag(subject_id, name)
        try:
            with drawing():
                model: Any = open_clip.create_model(
                    name,
                    tag,
                    load_weights=not untrained,
                    require_pretrained=not untrained,
                    pretrained_text=False,
                    **overrides,
                )
            config: Any = open_clip.get_model_config(name)
            tokenizer = open_clip.get_tokenizer(name, **tokenizer_settings)
        except _load_errors() as error:
            raise SubjectError(f"{subject_id}: open_clip cannot load it: {error}") from error
        check_vocabulary(subject_id, model, tokenizer)
        settings = {key: value for key, value in model.visual.preprocess_cfg.items() if key not in ("size", "mode")}
        transform = open_clip.image_transform(model.visual.preprocess_cfg["size"], is_train=False, **settings)
        if untrained:
            frames = Frames(model.visual.preprocess_cfg, transform)
            settle_batch_norms(model, frames.normalise(dead_leaves(*frames.size)))
        return cls(subject_id, model, tokenizer, transform, config, device, _as_dtype(subject_id, dtype))

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        """Return every hookpoint by name: the image tower's, then the text tower's, each in the order reached."""
        return self._hookpoints

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        """Read activations; a tower runs only if needed and stops at the last hookpoint asked of it.

        Raises:
            HookpointError: the subject has no such hookpoint.
            SubjectError: the batch has no input for a tower that is needed, or images of the wrong size.
        """
        for name in hookpoints:
            find_hookpoint(self._hookpoints, name, self.id)
        found: dict[str, Activation] = {}
        with torch.no_grad():
            for tower in _TOWERS:
                names = [name for name in self._hookpoints if name in hookpoints and name.startswith(f"{tower}.")]
                if names:
                    found |= self._read(tower, batch, names)
        return {name: found[name] for name in hookpoints}

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the pictures that the image tower takes."""
        return self._frames.size

    def see(
        self, pictures: Float[Tensor, "example 3 height width"], hookpoints: Sequence[str]
    ) -> dict[str, Activation]:
        """Read activations of the image tower for pictures in 0..1, before normalisation.

        Gradients flow to the pictures if they ask for them, and to each of the activations from those behind it.

        Raises:
            HookpointError: the image tower has no such hookpoint.
            SubjectError: the pictures are of the wrong size.
        """
        images = {name: one for name, one in self._hookpoints.items() if name.startswith("visual.")}
        for name in hookpoints:
            find_hookpoint(images, name, self.id)
        names = [name for name in images if name in hookpoints]
        sites = [self._sites[name] for name in names if name in self._sites]
        pixels = self._frames.standardise(pictures.to(self.device, torch.float32)).to(self.dtype)
        with reading(sites, last=names[-1], linked=True) as found:
            found["visual.embedding"] = self.model.encode_image(pixels).unsqueeze(1)
        return {name: found[name] for name in hookpoints}

    def rows(self, batch: Batch, grid: str) -> Rows:
        """Say which positions are rows: every one of an image, and of a text those up to its end-of-text token."""
        if grid == "text.tokens":
            tokens = self._tokens(batch)
            attended, kind = self._marks.mark(tokens)
            return Rows(keep=attended, kind=kind, token=tokens)
        if grid in self._grids:
            kinds = self._grids[grid].kinds()
        elif grid in ("visual.pooled", "text.pooled"):
            kinds = torch.tensor([Kind.POOLED], dtype=torch.uint8)
        else:
            allowed = dict.fromkeys(hookpoint.grid for hookpoint in self._hookpoints.values())
            raise HookpointError(f"{self.id}: no grid {grid!r}.{nearest(grid, allowed)}")
        kind = kinds.expand(len(batch), -1)
        return Rows(keep=torch.ones_like(kind, dtype=torch.bool), kind=kind)

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> ClipOutput:
        """Embed what the batch holds, images, texts or both, with activations replaced by `edits`.

        Raises:
            HookpointError: an edit names a hookpoint that the subject does not have.
            SubjectError: an edit changes the shape of its activation, or images have the wrong size.
        """
        checked = {name: self._checked(name, edit) for name, edit in (edits or {}).items()}
        embeddings: dict[str, Tensor | None] = dict.fromkeys(_TOWERS)
        sites = [self._sites[name] for name in checked if name in self._sites]
        with torch.set_grad_enabled(grad), editing(sites, checked):
            for tower, given in zip(_TOWERS, (batch.images, batch.tokens), strict=True):
                if given is not None:
                    last = checked.get(f"{tower}.embedding", _unchanged)
                    embedding = last(self._embed(tower, batch)).squeeze(1)
                    embeddings[tower] = F.normalize(embedding.float(), dim=-1)
        return ClipOutput(embeddings["visual"], embeddings["text"], self._logit_scale, self._logit_bias)

    def resume(self, hookpoint: str, x: Activation) -> ClipOutput | None:
        """Go on from activations at a hookpoint, with nothing before it run; the other tower's embedding is None.

        None where that cannot be done; it can at the embeddings, and behind the blocks of the image tower.

        Raises:
            HookpointError: the subject has no such hookpoint.
        """
        find_hookpoint(self._hookpoints, hookpoint, self.id)
        x, tower = x.to(self.device, self.dtype), hookpoint.partition(".")[0]
        if not hookpoint.endswith(".embedding"):
            images = [site for name, site in self._sites.items() if name.startswith("visual.")]
            blocks = blocks_up_to(images, hookpoint)
            if not blocks:
                return None
            if blocks[-1].spatial:
                grid = self._grids[blocks[-1].hookpoint.grid]
                x = x.transpose(1, 2).reshape(len(x), -1, grid.n_rows, grid.n_columns)
            # One blank frame is enough: what the last block returns has as many examples as it likes.
            blank = torch.zeros(1, 3, *self._frames.size, dtype=torch.uint8)
            with torch.no_grad(), skipping(blocks, x):
                x = self._embed(tower, Batch(first_example=0, images=blank))
        unit = F.normalize(x.squeeze(1).float(), dim=-1)
        image, text = (unit, None) if tower == "visual" else (None, unit)
        return ClipOutput(image, text, self._logit_scale, self._logit_bias)

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Float[Tensor, "n_classes d_in"]:
        """Return one unit vector per class: the normalised mean of its prompts' unit embeddings.

        Raises:
            SubjectError: a class has no prompt, or there is no class.
        """
        if not prompts or not all(prompts):
            raise SubjectError(f"{self.id}: a zero-shot classifier needs classes and at least one prompt for each.")
        texts = [text for of_class in prompts for text in of_class]
        embeddings = []
        for start in range(0, len(texts), _PROMPTS_AT_ONCE):
            tokens, _, _ = self.tokenize(texts[start : start + _PROMPTS_AT_ONCE])
            embeddings.append(self.forward(Batch(first_example=start, tokens=tokens)).text)
        by_class = torch.cat(embeddings).split([len(of_class) for of_class in prompts])
        return F.normalize(torch.stack([of_class.mean(0) for of_class in by_class]), dim=-1)

    def tokenize(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "example pos"], Bool[Tensor, "example pos"], UInt8[Tensor, "example pos"]]:
        """Return the tokens of texts, cut or padded to the model's context, where text is, and the `Kind` of each."""
        tokens = self.tokenizer(list(texts))
        return tokens, *self._marks.mark(tokens)

    def preprocess(self, image: Any) -> UInt8[Tensor, "3 height width"]:
        """Resize and crop a PIL image to the frame that the model sees, before normalisation."""
        return self._frames.preprocess(image)

    def patch_grid(self, grid: str) -> tuple[int, int]:
        """Return the rows and columns of patches in a grid of image positions."""
        return self._image_grid(grid).n_rows, self._image_grid(grid).n_columns

    def patch_box(self, grid: str, position: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom pixel, within the preprocessed frame, that a position stands for."""
        return self._image_grid(grid).box(position, self._frames.size)

    def provenance(self) -> dict[str, Any]:
        """Return what a manifest records of the subject."""
        libraries = ["torch", "torchvision", "open_clip_torch", "pillow"]
        libraries += ["timm"] if hasattr(self.model.visual, "trunk") else []
        libraries += ["transformers"] if hasattr(self.tokenizer, "tokenizer") else []
        return {
            "id": self.id,
            "kind": self.kind,
            "weights_sha256": self.weights_sha256,
            "libraries": {library: version(library) for library in libraries},
            "dtype": str(self.dtype).removeprefix("torch."),
            "quick_gelu": self.quick_gelu,
            "preprocess": self._frames.describe(),
            "tokens": self._marks.describe(),
        }

    def _read(self, tower: str, batch: Batch, names: Sequence[str]) -> dict[str, Activation]:
        """Read the named hookpoints of one tower, given in the order reached."""
        sites = [self._sites[name] for name in names if name in self._sites]
        with reading(sites, last=names[-1]) as found:
            found[f"{tower}.embedding"] = self._embed(tower, batch)
        return found

    def _embed(self, tower: str, batch: Batch) -> Activation:
        """Return what a tower yields, [example 1 d_in]."""
        if tower == "text":
            return self.model.encode_text(self._tokens(batch).to(self.device)).unsqueeze(1)
        if batch.images is None:
            raise SubjectError(f"{self.id}: the image tower is needed, but the batch holds no images.")
        pixels = self._frames.normalise(batch.images.to(self.device)).to(self.dtype)
        return self.model.encode_image(pixels).unsqueeze(1)

    def _tokens(self, batch: Batch) -> Tensor:
        if batch.tokens is None:
            raise SubjectError(f"{self.id}: the text tower is needed, but the batch holds no tokens.")
        return batch.tokens

    def _checked(self, name: str, edit: Edit) -> Edit:
        find_hookpoint(self._hookpoints, name, self.id)

        def checked(activation: Activation) -> Activation:
            new = edit(activation)
            if new.shape != activation.shape:
                found, expected = tuple(new.shape), tuple(activation.shape)
                raise SubjectError(f"{self.id}: the edit at {name} returned shape {found} instead of {expected}.")
            return new.to(activation)

        return checked

    def _image_grid(self, grid: str) -> PatchGrid:
        if grid not in self._grids:
            raise HookpointError(f"{self.id}: no grid of image positions {grid!r}.{nearest(grid, self._grids)}")
        return self._grids[grid]


def _unchanged(activation: Activation) -> Activation:
    return activation


def _by_tag(subject_id: str, source: str) -> tuple[str, str]:
    """Split NAME/TAG and check that open_clip knows both, and that they agree on the activation function."""
    import open_clip

    name, _, tag = source.rpartition("/")
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        known = nearest(name or tag, open_clip.list_models())
        raise SubjectError(f"{subject_id}: neither a model folder nor a NAME/TAG that open_clip knows.{known}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise SubjectError(f"{subject_id}: open_clip has no weights {tag!r} for {name}.{nearest(tag, tags)}")
    if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") and not config.get("quick_gelu"):
        raise SubjectError(
            f"{subject_id}: these weights were trained with QuickGELU and {name} computes GELU. "
            f"Use clip:{name}-quickgelu/{tag}."
        )
    return name, tag


def _as_dtype(subject_id: str, dtype: torch.dtype | str | None) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SubjectError(f"{subject_id}: no dtype {dtype!r}.{nearest(str(dtype), _DTYPES)}")
    return found


def _load_errors() -> tuple[type[Exception], ...]:
    """Return what open_clip raises for a model that is missing, damaged or does not fit its config."""
    from safetensors import SafetensorError

    return OSError, RuntimeError, ValueError, KeyError, TypeError, AssertionError, SafetensorError
