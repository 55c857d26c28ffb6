"""Dictionaries on the Hugging Face hub: `hub:OWNER/NAME[@REVISION][/FOLDER]`.

Downloading takes the files of one folder that a known format consists of, and nothing else: such repositories may hold
terabytes. Uploading is one commit of the dictionary's files, its report, its pictures and a model card.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from types import ModuleType

from sae import config as configs
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import registry as formats
from sae.errors import DictionaryError, nearest

PREFIX = "hub:"
OURS = ("dictionary.json", "dictionary.safetensors", "report.json")
"""Files of a folder of ours that are fetched; the scores of single latents are not needed to use a dictionary."""


def download(source: str) -> Path:
    """Fetch a dictionary from the hub and return the folder, or the one file, that it was put in.

    Without a connection the hub's own cache answers.

    Raises:
        DictionaryError: the name is not as above, there is no such repository or folder, or no dictionary in it.
    """
    found = re.fullmatch(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+?))?/?", source)
    if found is None:
        raise DictionaryError(f"{source}: expected {PREFIX}OWNER/NAME[@REVISION][/FOLDER].")
    repo, revision, folder = found[1], found[2], found[3] or ""
    library = _library()
    try:
        try:
            files = library.HfApi().list_repo_files(repo, revision=revision)
        except library.errors.OfflineModeIsEnabled:
            root = library.snapshot_download(repo, revision=revision, local_files_only=True)
            return Path(root) / folder
        wanted = _wanted(files, folder, source)
        return Path(library.snapshot_download(repo, revision=revision, allow_patterns=wanted)) / folder
    except (library.errors.HTTPError, OSError, ValueError) as error:
        raise DictionaryError(f"{source}: could not be fetched: {error}") from error


def push(
    folder: Path | str,
    repo: str,
    card: str,
    pictures: Sequence[Path] = (),
    *,
    report: Path | None = None,
    path_in_repo: str = "",
    private: bool = False,
    message: str | None = None,
) -> str:
    """Upload the files of a dictionary's folder, with a card as README.md and pictures, in one commit; return its URL.

    Args:
        folder: files directly in it are uploaded, whatever format they are in; but for hidden ones.
        repo: OWNER/NAME; created if it is not there.
        card: text of the model card, see `model_card`.
        pictures: files that the card shows; they go to pictures/.
        report: a report to put beside the dictionary, if that in the folder is not the one.
        path_in_repo: where the folder's files go, such as the name of a hookpoint; the card stays at the top.
        private: whether a new repository is hidden from others.
        message: what the commit says.

    Raises:
        DictionaryError: the folder holds no dictionary, or the hub refuses.
    """
    folder, library = Path(folder), _library()
    if folder.is_file():
        raise DictionaryError(f"{folder}: a single file, which says little of itself; convert it to a folder first.")
    if not (folder / "dictionary.json").is_file() and formats.detect(folder) is None:
        raise DictionaryError(f"{folder}: no dictionary to upload.")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    contents: dict[str, Path | bytes] = {str(PurePosixPath(path_in_repo) / file.name): file for file in files}
    contents["README.md"] = card.encode()
    contents |= {f"pictures/{picture.name}": picture for picture in pictures}
    if report is not None:
        contents[str(PurePosixPath(path_in_repo) / "report.json")] = report
    add = library.CommitOperationAdd
    try:
        api = library.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [add(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
        commit = api.create_commit(repo, operations, commit_message=message or f"Upload {path_in_repo or 'dictionary'}")
    except (library.errors.HTTPError, OSError, ValueError) as error:
        raise DictionaryError(f"{folder}: could not be uploaded to {repo}: {error}") from error
    return str(commit.commit_url)


def repository(name: str) -> tuple[str, str]:
    """Return OWNER/NAME and FOLDER of `[hub:]OWNER/NAME[/FOLDER]`, where a dictionary is to go.

    Raises:
        DictionaryError: it is not of that form.
    """
    found = re.fullmatch(rf"(?:{PREFIX})?([\w.-]+/[\w.-]+)(?:/(.+?))?/?", name)
    if found is None:
        raise DictionaryError(f"{name}: expected OWNER/NAME[/FOLDER].")
    return found[1], found[2] or ""


def model_card(
    dictionary: Dictionary,
    repo: str,
    header: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    pictures: Sequence[Path] = (),
    *,
    path_in_repo: str = "",
) -> str:
    """Return the text of a model card: what the dictionary is, how to load it, its report's table, and its pictures.

    Args:
        dictionary: what the card is about.
        repo: OWNER/NAME of the repository that it will be in.
        header: names of the columns of the report's table.
        rows: its rows; without any, the card says that there is no report.
        pictures: files that will lie in pictures/, shown under their names.
        path_in_repo: folder of the dictionary in the repository.
    """
    source = PREFIX + str(PurePosixPath(repo) / path_in_repo)
    config = configs.encode(dictionary.config)
    settings = {"kind": config["kind"], "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}
    settings |= {"d_out": dictionary.d_out} if dictionary.is_transcoder else {}
    # What its codes depend on. Settings of training are in dictionary.json, and those of an imported one are not known.
    settings |= {key: config[key] for key in ("k", "layer_norm", "skip") if config.get(key)}
    origin = ("subject", "hookpoint", "target_hookpoint")
    settings |= {key: dictionary.provenance[key] for key in origin if key in dictionary.provenance}
    facts = "\n".join(f"- {key}: `{value}`" for key, value in settings.items())
    table = "\n".join([_row(header), _row(["---"] * len(header)), *map(_row, rows)]) if rows else "There is no report."
    shown = "\n\n".join(f"![{picture.stem}](pictures/{picture.name})" for picture in pictures)
    return f"""---
library_name: sae-dictionaries
tags: [sparse-autoencoder, interpretability, dictionary-learning]
---
# {repo.partition("/")[2]}

A dictionary of {dictionary.d_sae:,} latents, sha256 `{dictionary.hash}`.

{facts}

```python
import sae

dictionary = sae.load_dictionary("{source}")
codes = dictionary.encode(x)  # x [batch, {dictionary.d_in}]; codes are sparse, codes.dense() is not
x_hat = dictionary(x)  # [batch, {dictionary.d_out}]
```

## Report

{table}
{chr(10) + shown + chr(10) if shown else ""}"""


def _wanted(files: Sequence[str], folder: str, source: str) -> list[str]:
    """Return the files of a folder, or the file and its config, that make up a dictionary."""
    if folder in files:
        config = str(PurePosixPath(folder).with_name("config.json"))
        return [folder, *({config} & set(files))]
    inside = {
        file: PurePosixPath(file).relative_to(folder) for file in files if PurePosixPath(file).is_relative_to(folder)
    }
    wanted = [file for file, name in inside.items() if _known(name)]
    if not wanted:
        folders = sorted(
            {str(PurePosixPath(file).parent) for file in files if _known(PurePosixPath(PurePosixPath(file).name))}
        )
        raise DictionaryError(f"{source}: no dictionary directly in {folder or 'it'}.{nearest(folder, folders)}")
    return wanted


def _known(name: PurePosixPath) -> bool:
    patterns = (*OURS, *formats.patterns())
    return any(len(PurePosixPath(one).parts) == len(name.parts) and fnmatch(str(name), one) for one in patterns)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _library() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise DictionaryError("the hub needs huggingface_hub: pip install 'sae-dictionaries[hub]'.") from error
    return huggingface_hub
