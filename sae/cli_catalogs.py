"""Commands that take a catalog somewhere else: to files, from other tools' files, before a judge."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sae import log
from sae.arguments import take_flag, take_option, take_positional
from sae.errors import ConfigError, nearest


def export(arguments: list[str]) -> None:
    """Write a catalog as files: sae export CATALOG --out PATH [--card latent/123 | --neuronpedia ...].

    Without more, its pages for any static host or a disk; with --card one card as one file. With --neuronpedia what
    Neuronpedia imports: give --source-set, a short name of the kind of dictionary, and --creator; --model, --release,
    --description and --creator-id if you like. --vectors adds the decoder, which steering there needs.
    """
    from sae.features.catalog import Catalog
    from sae.server.export import export as run

    out, card = take_option(arguments, "--out"), take_option(arguments, "--card")
    elsewhere = take_flag(arguments, "--neuronpedia")
    upload = _taken_upload(arguments) if elsewhere else {}
    with_vectors = take_flag(arguments, "--vectors") if elsewhere else False
    (path,) = take_positional(arguments, ("CATALOG",), "sae export")
    if out is None:
        raise ConfigError("--out: name the folder to write, or with --card the file.")
    if card is not None and elsewhere:
        raise ConfigError("--card and --neuronpedia: name one of them; Neuronpedia takes all latents.")
    catalog = Catalog.open(path)
    if elsewhere:
        _to_neuronpedia(catalog, Path(out), upload, with_vectors)
    elif card is None:
        run(catalog, Path(out))
        print(f"open {Path(out) / 'index.html'}")
    else:
        kind, _, index = card.partition("/")
        if not index.isdecimal():
            raise ConfigError(f"--card {card}: must be KIND/NUMBER, as in latent/123.")
        Path(out).write_text(catalog.shelf(kind)[int(index)].to_html(), encoding="utf-8")
        print(f"open {out}")


def _taken_upload(arguments: list[str]) -> dict[str, str]:
    options = {"source_set": "--source-set", "creator_name": "--creator", "description": "--description"}
    options |= {"model": "--model", "release": "--release", "creator_id": "--creator-id"}
    given = {name: value for name, option in options.items() if (value := take_option(arguments, option)) is not None}
    for name in ("source_set", "creator_name"):
        if name not in given:
            raise ConfigError(f"{options[name]}: --neuronpedia needs it.")
    return given


def _to_neuronpedia(catalog: Any, out: Path, upload: dict[str, str], with_vectors: bool) -> None:
    from sae.features.exchange.neuronpedia import Upload, export_neuronpedia
    from sae.features.explanations import Explanations

    W_dec = None
    if with_vectors:
        from sae.dictionaries.io import load_dictionary

        source = catalog.about.dictionary.get("source")
        if source is None:
            raise ConfigError(f"--vectors: {catalog.path} does not name its dictionary; it was imported.")
        W_dec = load_dictionary(source).W_dec.detach().float().numpy()
    said = [one.to_json() for one in Explanations(catalog.path)]
    print(f"saved in {export_neuronpedia(catalog, out, Upload(**upload), said, W_dec)}")


def import_(arguments: list[str]) -> None:
    """Make a catalog of another tool's files: sae import neuronpedia|saedashboard FOLDER --out CATALOG.

    FOLDER is that of one source of Neuronpedia's (with features/, activations/ and explanations/), or SAEDashboard's
    output with its batch-N.json. Explanations that come with them are kept. CATALOG is a folder that is new or empty.
    """
    from sae.features.exchange.neuronpedia_import import import_neuronpedia
    from sae.features.exchange.saedashboard import import_saedashboard
    from sae.features.explanations import Explanations

    readers: dict[str, Callable[[str, Path], tuple[Any, list[dict[str, Any]]]]] = {
        "neuronpedia": import_neuronpedia,
        "saedashboard": lambda folder, out: (import_saedashboard(folder, out), []),
    }
    out = take_option(arguments, "--out")
    form, folder = take_positional(arguments, ("neuronpedia|saedashboard", "FOLDER"), "sae import")
    if form not in readers:
        raise ConfigError(f"{form}: no such tool's files are read.{nearest(form, readers)}")
    if out is None:
        raise ConfigError("--out: name the folder of the catalog to write.")
    if Path(out).exists() and not (Path(out).is_dir() and not any(Path(out).iterdir())):
        raise ConfigError(f"{out}: is there already; give a folder that is new or empty.")
    catalog, explanations = readers[form](folder, Path(out))
    said = Explanations(catalog.path)
    for one in explanations:
        said.add(**one)
    print(catalog)
    print(f"saved in {out}, with {len(explanations)} explanations")


def judge(arguments: list[str]) -> None:
    """Score explanations on held-out examples: sae judge CATALOG --live STORE | --endpoint URL --model NAME.

    With the store that the catalog was made from, a CLIP subject judges by its joint space. An OpenAI-compatible chat
    endpoint judges text; --key-variable names the variable of the environment that holds its key, if it wants one.
    --latents 1,2,3 judges only these; all that have explanations by default. What was scored is not scored again until
    its text is changed.
    """
    from sae.features.catalog import Catalog
    from sae.features.judging.judge import score

    latents, store = take_option(arguments, "--latents"), take_option(arguments, "--live")
    chat = {name: take_option(arguments, f"--{name}") for name in ("endpoint", "model", "key-variable")}
    (path,) = take_positional(arguments, ("CATALOG",), "sae judge")
    words = [] if latents is None else latents.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise ConfigError(f"--latents {latents}: must be numbers with commas between, as in 1,2,3.")
    if (store is None) == (chat["endpoint"] is None):
        raise ConfigError("usage: sae judge CATALOG --live STORE, or --endpoint URL --model NAME; name one judge.")
    catalog = Catalog.open(path)
    rater = _chat_judge(chat) if store is None else _joint_space_judge(catalog, Path(store))
    indices = None if latents is None else [int(word) for word in words]
    rows = []
    for found in score(catalog, rater, "latent", indices):
        low, high = found.agreement.interval
        told = (f"{found.agreement.value:.3f}", f"[{low:.3f}, {high:.3f}]", str(found.agreement.n))
        rows.append((f"latent {found.explanation.index}", found.explanation.text[:60], *told))
    log.table(("card", "explanation", "AUC", "95 % interval", "examples"), rows)
    print(f"{len(rows)} scores by {rater.name} added; 0.5 is chance")


def _joint_space_judge(catalog: Any, store: Path) -> Any:
    from sae.activations.reopen import open_store
    from sae.activations.store import ActivationStore
    from sae.features.judging.judge import JointSpaceJudge

    if ActivationStore(store).hash != catalog.about.store:
        raise ConfigError(f"--live {store}: {catalog.path} was not made from it; name the store that it was made from.")
    return JointSpaceJudge(*open_store(store))


def _chat_judge(chat: dict[str, str | None]) -> Any:
    from sae.features.judging.chat_judge import ChatJudge

    endpoint, model, variable = chat["endpoint"], chat["model"], chat["key-variable"]
    if endpoint is None or model is None:
        raise ConfigError("--endpoint: needs --model, the name of a model there.")
    if variable is not None and variable not in os.environ:
        raise ConfigError(f"--key-variable {variable}: there is no such variable in the environment.")
    return ChatJudge(endpoint, model, None if variable is None else os.environ[variable])
