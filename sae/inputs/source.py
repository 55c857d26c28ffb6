"""Opening the examples that a config describes."""

from collections.abc import Callable, Mapping
from typing import Any

from sae import builtin
from sae.config import decode
from sae.errors import ConfigError
from sae.inputs.base import Inputs
from sae.inputs.configs import (
    ConceptInputsConfig,
    ImageInputsConfig,
    InputsConfig,
    StdlibInputsConfig,
    TextInputsConfig,
)

__all__ = [
    "ConceptInputsConfig",
    "ImageInputsConfig",
    "InputsConfig",
    "StdlibInputsConfig",
    "TextInputsConfig",
    "builtin_inputs",
    "open_inputs",
]

_TOKENIZER = "tokenizer: use it with a language subject"


def open_inputs(
    config: InputsConfig | Mapping[str, Any],
    tokenizer: Any = None,
    tokenize: Callable[..., Any] | None = None,
    preprocess: Callable[..., Any] | None = None,
) -> Inputs:
    """Open the examples that a config describes.

    Args:
        config: one of the configs above, or the plain mapping of one.
        tokenizer: of a language subject, for text.
        tokenize: of a CLIP subject, for captions.
        preprocess: of a CLIP subject, for images.

    Raises:
        ConfigError: an unknown setting, or a subject that has not what these inputs need.
        InputsError: the examples cannot be read.
    """
    return _open(decode(InputsConfig, config, where="inputs"), tokenizer, tokenize, preprocess)


def builtin_inputs(subject_id: str) -> StdlibInputsConfig | ConceptInputsConfig:
    """Return the scoring split of the corpus that belongs to a built-in subject, trained or `untrained:`.

    Raises:
        ConfigError: the subject is not built in, so there is nothing to show it on.
    """
    trained_id = subject_id.removeprefix(builtin.UNTRAINED)
    name, _, seed = builtin.canonical(trained_id).removeprefix(builtin.PREFIX).partition("@")
    if trained_id.startswith(builtin.PREFIX) and name.startswith("stdlib"):
        return StdlibInputsConfig(split="score")
    if trained_id.startswith(builtin.PREFIX) and name.startswith("concepts"):
        return ConceptInputsConfig(split="score", seed=int(seed), uniform=True)
    raise ConfigError(f"{subject_id}: only builtin:stdlib-... and builtin:concepts-... bring inputs; name a store.")


def _open(chosen: InputsConfig, tokenizer: Any, tokenize: Any, preprocess: Any) -> Any:
    if isinstance(chosen, StdlibInputsConfig):
        from sae.inputs.stdlib import StdlibText

        tokenizer = _needed(tokenizer, chosen, _TOKENIZER)
        return StdlibText(chosen.split, tokenizer, n_examples=chosen.n_examples, context=chosen.context)
    if isinstance(chosen, TextInputsConfig):
        from sae.inputs.chat import ChatInputs
        from sae.inputs.text import TextInputs

        return (ChatInputs if chosen.format == "chat" else TextInputs)(chosen, _needed(tokenizer, chosen, _TOKENIZER))
    if isinstance(chosen, ConceptInputsConfig):
        from sae.inputs.concepts import ConceptInputs, World

        world = World(chosen.seed) if chosen.size is None else World(chosen.seed, chosen.size)
        # The world marks padding itself; of the subject's (tokens, attended, kind) it needs the tokens.
        ids = (lambda texts: tokenize(texts)[0]) if tokenize is not None and chosen.captions else None
        return ConceptInputs(
            world, chosen.split, chosen.n_examples, tokenize=ids, uniform=chosen.uniform, written=chosen.written
        )
    from sae.inputs.images import ImageInputs

    preprocess = _needed(preprocess, chosen, "preprocess: use it with a CLIP subject")
    return ImageInputs(chosen, preprocess, tokenize if chosen.caption_column else None)


def _needed(given: Any, config: InputsConfig, what: str) -> Any:
    if given is None:
        raise ConfigError(f"inputs of kind {config.kind!r} need a {what}.")
    return given
