"""The settings that choose where text and images come from; `sae.inputs.source` opens them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class _Elsewhere:
    """A local path, or a data set of the Hugging Face hub."""

    path: Path | None = None
    """A local file or folder."""
    hub: str | None = None
    """Name of a data set on the Hugging Face hub, read by streaming; needs n_examples."""
    subset: str | None = None
    """Configuration of the hub's data set, where it has several."""
    split: str = "train"
    """Split of the hub's data set."""
    revision: str | None = None
    """Commit of the hub's data set; pin it to be sure of the same data later."""
    n_examples: int | None = None
    """At most this many examples; null takes all."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.hub is None):
            raise ConfigError(f"needs either path or hub, got path={self.path} and hub={self.hub}.")
        if self.hub is not None and self.n_examples is None:
            raise ConfigError("n_examples: a data set of the hub is streamed, so say how many examples.")
        _at_least("n_examples", self.n_examples, 1)


@dataclass(frozen=True, kw_only=True)
class StdlibInputsConfig:
    """The standard library of the running Python, with exact labels."""

    kind: ClassVar[str] = "stdlib"

    split: str = "dictionary"
    """train, dictionary or score, or several joined by "+"."""
    context: int = 128
    """Tokens per window, BOS included."""
    n_examples: int | None = None
    """At most this many windows; null takes all."""

    def __post_init__(self) -> None:
        _at_least("context", self.context, 2)
        _at_least("n_examples", self.n_examples, 1)


@dataclass(frozen=True, kw_only=True)
class TextInputsConfig(_Elsewhere):
    """Text or conversations: .txt, .jsonl or .parquet files, a folder of them, or the hub."""

    kind: ClassVar[str] = "text"

    format: Literal["text", "chat"] = "text"
    """text: strings. chat: lists of {role, content}, put through the tokenizer's chat template."""
    column: str | None = None
    """Field that holds the text or the conversation; null is "text", or "messages" for chat."""
    context: int = 128
    """Tokens per example at most, BOS included."""
    packing: Literal["packed", "none"] = "packed"
    """packed: documents end to end, cut into windows without padding. none: one document per example, cut at context
    and padded (encoders such as BERT); then each line of a .txt file is a document."""
    bos: bool | None = None
    """Begin every example with the BOS token; null does where the tokenizer has one and a template adds none."""
    roles: tuple[Literal["system", "user", "assistant", "tool"], ...] = ()
    """For chat: mark tokens of other roles, and of the template, as special, so that training leaves them out."""
    cache: Path | None = None
    """Folder where token ids are kept for the next time; null keeps small corpora in memory and others in the user's
    cache folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("context", self.context, 2)
        if self.roles and self.format != "chat":
            raise ConfigError(f"roles: only conversations have them; format is {self.format!r}.")


@dataclass(frozen=True, kw_only=True)
class ConceptInputsConfig:
    """Pictures of the procedural concept world, with exact labels."""

    kind: ClassVar[str] = "concepts"

    split: Literal["subject", "dictionary", "score"] = "dictionary"
    """Whose scenes: the subject's training, the dictionaries', or those kept for scoring."""
    n_examples: int = 4096
    """Number of scenes."""
    seed: int = 0
    """Seed of the world; that of the subject."""
    size: int | None = None
    """Side of the pictures in pixels; null is the world's own."""
    captions: bool = True
    """Give every picture its caption."""
    uniform: bool = False
    """Draw concepts with equal chances, not by their frequencies, so that rare ones are scored as well."""
    written: float = 0.0
    """Write a word across about this share of the pictures that show none, as a typographic attack would."""

    def __post_init__(self) -> None:
        if not 0 <= self.written <= 1:
            raise ConfigError(f"written: a share in [0, 1], got {self.written}.")
        _at_least("n_examples", self.n_examples, 1)


@dataclass(frozen=True, kw_only=True)
class ImageInputsConfig(_Elsewhere):
    """Images with or without captions: a folder, a .jsonl or .csv with paths, .tar shards of a webdataset, .parquet
    files, or the hub. Of local ones, n_examples are taken at even distances.

    A folder is read in an order that has nothing to do with classes, everything else in its own, which should be
    shuffled: methods work on the first examples.
    """

    kind: ClassVar[str] = "images"

    image_column: str | None = None
    """Field that holds the image; null is "image", or any image of a sample in .tar shards."""
    caption_column: str | None = None
    """Field that holds the caption, in .tar shards its suffix, such as txt; a folder has metadata.jsonl or .csv with
    file_name and this field. Null reads none."""
    class_column: str | None = None
    """Field that holds the class, in .tar shards its suffix, such as cls; a folder's subfolders are its classes."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded and say how many; to find them, all are decoded once in advance."""


InputsConfig = StdlibInputsConfig | TextInputsConfig | ConceptInputsConfig | ImageInputsConfig
"""Any source of examples; in YAML, `kind` says which."""


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{name}: must be at least {least}, got {value}.")
