"""Language models through TransformerLens: its names for the places, plain PyTorch hooks to read and replace them.

TransformerLens knows, for every architecture it supports, which module carries `blocks.3.mlp.hook_post`. Only that
table is used; the Hugging Face model itself is left as it is and runs at its own speed, with hooks on the modules that
a call needs and on no others.
"""

import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources import build_bridge_config_from_hf
from transformer_lens.model_bridge.sources.transformers import (
    determine_architecture_from_hf_config,
    get_hf_model_class_for_architecture,
)
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from sae.errors import SubjectError, nearest
from sae.subjects.base import Activation, Edit, Hookpoint, find_hookpoint
from sae.subjects.places import Place, Visitor, final_norm_map, find_final_norm, find_places
from sae.subjects.untrained import drawing
from sae.tensors import Batch, Kind, Rows

GRID = "tokens"
"""The one grid of a language subject: a row per token."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")

logger = logging.getLogger(__name__)


class _AllReadError(Exception):
    """Raised by the hook that read the last activation asked for, so that nothing after it runs."""


class LanguageSubject:
    """A frozen language model: causal (GPT-2, Pythia, Llama, Gemma, ...) or an encoder (BERT).

    Hookpoints are those of `TransformerBridge`, with its values: `hook_embed`, and in every block `hook_resid_pre`,
    `hook_resid_mid`, `hook_resid_post`, `hook_attn_out`, `hook_mlp_out`, `mlp.hook_in`, `mlp.hook_pre`,
    `mlp.hook_post` and `attn.hook_z` (heads side by side), as far as the architecture has them. `mlp.hook_in` is what
    the MLP is given, after any norm: with `hook_mlp_out` the two ends of a transcoder. Parallel blocks have no
    `hook_resid_mid`, nor have encoders that normalise after the addition, where TransformerLens gives this name to a
    place behind the MLP; their `hook_attn_out` is taken after that normalisation, as TransformerLens takes it.

    A checkpoint without the head (a sentence encoder, a bare `BertModel`) can be read, but has no logits.
    """

    kind = "language"

    def __init__(
        self,
        id: str,
        model: nn.Module,
        source: str,
        causal: bool,
        places: Mapping[str, Place],
        has_head: bool = True,
        untrained: bool = False,
        final_norm: nn.Module | None = None,
    ) -> None:
        self.id = id
        self.model: Any = model
        self.causal = causal
        self.has_head = has_head
        self._source = source
        self._untrained = untrained
        self._final_norm = final_norm
        self._places = dict(places)
        self._hookpoints = self._probe()

    @classmethod
    def from_id(
        cls,
        id: str,
        folder_or_name: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        untrained: bool = False,
    ) -> Self:
        """Load a local Hugging Face folder or a model of the hub.

        Args:
            id: what the subject calls itself.
            folder_or_name: the folder, or the name on the hub.
            device: where it runs.
            dtype: of the weights and activations; float32 on a CPU and the checkpoint's own elsewhere if not given.
            untrained: take only the config and the tokenizer, and draw the weights anew.

        Raises:
            SubjectError: nothing is there, it cannot be read, or TransformerLens does not know the architecture.
        """
        source = str(folder_or_name)
        on_cpu = torch.device(device).type == "cpu"
        try:
            config = AutoConfig.from_pretrained(source)
            architecture = determine_architecture_from_hf_config(config)
            model_class = get_hf_model_class_for_architecture(architecture)
            chosen = _dtype(dtype) or (torch.float32 if on_cpu else "auto")
            hf_logging.disable_progress_bar()
            model, missing = _draw(model_class, config, chosen) if untrained else _read(model_class, source, chosen)
            bridge_config = build_bridge_config_from_hf(config, architecture, source, model.dtype)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(bridge_config)
            places = find_places(adapter, model)
            final_norm = find_final_norm(adapter, model)
        except (OSError, ValueError) as error:
            raise SubjectError(f"{id}: cannot load {source!r} as a language model: {error}") from error
        has_head = _check_weights(id, model, missing)
        model.config.use_cache = False
        model = model.to(device).eval().requires_grad_(False)
        return cls(id, model, source, model_class is not AutoModelForMaskedLM, places, has_head, untrained, final_norm)

    @property
    def device(self) -> torch.device:
        """Where the model runs and activations lie."""
        return self.model.device

    @property
    def predicts_next_token(self) -> bool:
        """Whether `forward` gives logits of the next token; an encoder's are those of the token itself."""
        return self.causal and self.has_head

    @cached_property
    def tokenizer(self) -> Any:
        """The model's Hugging Face tokenizer.

        Raises:
            SubjectError: it has none; the subject still runs on token ids.
        """
        folder = Path(self._source)
        if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise SubjectError(f"{self.id}: {folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)}); save one there.")
        try:
            return AutoTokenizer.from_pretrained(self._source)
        except (OSError, ValueError) as error:
            raise SubjectError(f"{self.id}: cannot read the tokenizer of {self._source!r}: {error}") from error

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        """Return every hookpoint by name, in the order in which the model reaches them."""
        return self._hookpoints

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        """Read activations, stopping after the last one needed.

        Raises:
            HookpointError: an unknown name.
            SubjectError: token ids or a length that the model cannot take.
        """
        for name in hookpoints:
            find_hookpoint(self._hookpoints, name, self.id)
        read: dict[str, Tensor] = {}

        def reader(name: str) -> Callable[[Tensor], None]:
            def visitor(x: Tensor) -> None:
                read[name] = x
                if len(read) == len(set(hookpoints)):
                    raise _AllReadError

            return visitor

        if hookpoints:
            with torch.no_grad(), self._visited({name: reader(name) for name in hookpoints}), suppress(_AllReadError):
                self._call(batch)
        return {name: read[name] for name in hookpoints}

    def rows(self, batch: Batch, grid: str = GRID) -> Rows:
        """Keep every attended position; kinds are the batch's, and without them every row is a token.

        Raises:
            SubjectError: a grid other than "tokens", or a batch without tokens.
        """
        if grid != GRID:
            raise SubjectError(f"{self.id}: no grid {grid!r}.{nearest(grid, [GRID])}")
        tokens = self._tokens(batch)
        keep = batch.attended if batch.attended is not None else torch.ones_like(tokens, dtype=torch.bool)
        kind = batch.kind if batch.kind is not None else torch.full_like(tokens, Kind.TOKEN, dtype=torch.uint8)
        return Rows(keep=keep, kind=kind, token=tokens)

    def forward(
        self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False
    ) -> Float[Tensor, "example pos vocab"]:
        """Run to the end with activations replaced by `edits`; returns logits (of masked tokens for an encoder).

        With `grad`, gradients flow through the frozen weights to whatever the edits brought in.

        Raises:
            HookpointError: an unknown name.
            SubjectError: the checkpoint has no head, token ids or a length that the model cannot take, or an edit
                that changes the shape.
        """
        if not self.has_head:
            raise SubjectError(f"{self.id}: the checkpoint has no language-modelling head, so there are no logits.")
        for name in edits or {}:
            find_hookpoint(self._hookpoints, name, self.id)

        def writer(name: str, edit: Edit) -> Visitor:
            def visitor(x: Tensor) -> Tensor | None:
                in_place = self._places[name].in_place
                new = edit(x.clone() if in_place else x).to(x)
                if new.shape != x.shape:
                    raise SubjectError(f"{name}: an edit changed the shape {tuple(x.shape)} to {tuple(new.shape)}.")
                if not in_place:
                    return new
                x.copy_(new)
                return None

            return visitor

        with torch.set_grad_enabled(grad), self._visited({n: writer(n, e) for n, e in (edits or {}).items()}):
            return self._call(batch).logits

    @torch.no_grad()
    def direct_logits(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
        """Return what directions in the residual stream add to the logits of the next token on their direct path.

        Of the final norm its centring and its weights count, while its scale, which depends on the text, is left at 1;
        so do no biases, and from each direction's logits their mean over the vocabulary is taken, which no probability
        depends on.

        Raises:
            SubjectError: the subject does not predict the next token, or its head is no matrix.
        """
        head = self.model.get_output_embeddings() if self.predicts_next_token else None
        if not isinstance(head, nn.Linear):
            raise SubjectError(
                f"{self.id}: has no matrix that turns the residual stream into logits of the next token."
            )
        directions = directions.to(self.device, torch.float32)
        weight, centred = self._norm_map
        if centred:
            directions = directions - directions.mean(1, keepdim=True)
        logits = (directions * weight) @ head.weight.float().T
        return (logits - logits.mean(1, keepdim=True)).cpu()

    @cached_property
    def _norm_map(self) -> tuple[Tensor, bool]:
        return final_norm_map(self._final_norm, self.model.get_input_embeddings().embedding_dim, self.device)

    def provenance(self) -> dict[str, Any]:
        """Return what a manifest records about the model."""
        libraries = ("torch", "transformers", "transformer-lens")
        return {
            "weights_sha256": self._weights_sha256,
            "architecture": type(self.model).__name__,
            "libraries": {name: importlib.metadata.version(name) for name in libraries},
            "folding": "none",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.config._attn_implementation,
            "tokens": self._token_policy(),
        }

    @cached_property
    def _weights_sha256(self) -> str:
        """Hash of the local safetensors files, or of the parameters where the weights came from elsewhere."""
        digest = hashlib.sha256()
        local = Path(self._source).is_dir() and not self._untrained
        files = sorted(Path(self._source).glob("*.safetensors")) if local else []
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        # A head that the checkpoint lacks is random, different each time.
        read = self.model if self.has_head else self.model.base_model
        for name, weights in sorted(read.state_dict().items()) if not files else ():
            digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
            digest.update(weights.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _token_policy(self) -> dict[str, Any]:
        masked = "where a batch has padding" if self.causal else "always given"
        try:
            tokenizer = self.tokenizer
        except SubjectError:
            return {"attention_mask": masked, "tokenizer": None}
        special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
        return {"attention_mask": masked, "tokenizer": type(tokenizer).__name__, "special": special, "padding": "right"}

    def _tokens(self, batch: Batch) -> Tensor:
        if batch.tokens is None:
            raise SubjectError(f"{self.id}: a language subject needs tokens, and the batch has none.")
        return batch.tokens

    def _call(self, batch: Batch) -> Any:
        tokens = self._tokens(batch)
        limit = getattr(self.model.config, "max_position_embeddings", None) or tokens.shape[1]
        if tokens.shape[1] > limit:
            raise SubjectError(f"{self.id}: {tokens.shape[1]} positions, but the model takes at most {limit}.")
        n_vocab = self.model.get_input_embeddings().num_embeddings
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < n_vocab:
            raise SubjectError(
                f"{self.id}: token ids from {int(tokens.min())} to {int(tokens.max())}; allowed are 0 to {n_vocab - 1}."
            )
        mask = batch.attended
        if mask is not None and self.causal and bool(mask.all()):
            mask = None
        if mask is None and not self.causal:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        named = {} if mask is None else {"attention_mask": mask.to(self.device, torch.long)}
        return self.model(input_ids=tokens.to(self.device, torch.long), **named)

    @contextmanager
    def _visited(self, visitors: Mapping[str, Visitor]) -> Iterator[None]:
        handles = [self._places[name].visit(visitor) for name, visitor in visitors.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _probe(self) -> dict[str, Hookpoint]:
        """Run two tokens; a hookpoint is a place that is reached once, with one vector for each of them."""
        shapes: dict[str, list[torch.Size]] = {}

        def recorder(name: str) -> Callable[[Tensor], None]:
            return lambda x: shapes.setdefault(name, []).append(x.shape)

        with torch.no_grad(), self._visited({name: recorder(name) for name in self._places}):
            self._call(Batch(first_example=0, tokens=torch.zeros(1, 2, dtype=torch.long)))
        found: dict[str, Hookpoint] = {}
        for name, seen in shapes.items():
            behind_mlp = name.endswith("hook_resid_mid") and name.replace("hook_resid_mid", "mlp.hook_post") in found
            if len(seen) == 1 and len(seen[0]) == 3 and seen[0][:2] == (1, 2) and not behind_mlp:
                found[name] = Hookpoint(name, seen[0][2], GRID)
        return found


def _read(model_class: Any, source: str, dtype: torch.dtype | str) -> tuple[Any, Collection[str]]:
    """Load a model, and return it with the names of the weights that its checkpoint lacks."""
    model, loading = model_class.from_pretrained(source, dtype=dtype, output_loading_info=True)
    return model, loading["missing_keys"]


def _draw(model_class: Any, config: Any, dtype: torch.dtype | str) -> tuple[Any, Collection[str]]:
    """Return the model as its own initialisation makes it; drawn in float32, so that no weight depends on the dtype."""
    with drawing():
        model = model_class.from_config(config, dtype=torch.float32)
    return model.to(config.dtype or torch.float32 if dtype == "auto" else dtype), ()


def _check_weights(id: str, model: Any, missing: Collection[str]) -> bool:
    """Return whether the checkpoint has the head, and warn of all weights it lacks."""
    body = f"{model.base_model_prefix}."
    random = sorted(name for name in missing if name.startswith(body))
    if random:
        logger.warning("%s: the checkpoint lacks %s; these weights are random", id, ", ".join(random[:8]))
    has_head = len(random) == len(missing)
    if not has_head:
        logger.warning("%s: the checkpoint has no language-modelling head; activations can be read, logits cannot", id)
    return has_head


def _dtype(given: torch.dtype | str | None) -> torch.dtype | None:
    """Return a dtype by its name, such as "bfloat16"."""
    if given is None or isinstance(given, torch.dtype):
        return given
    dtype = getattr(torch, given, None)
    if not isinstance(dtype, torch.dtype):
        raise SubjectError(f"unknown dtype {given!r}.{nearest(given, ['float32', 'bfloat16', 'float16'])}")
    return dtype
