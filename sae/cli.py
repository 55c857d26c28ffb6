"""The `sae` command: parse, call the library, print. Nothing heavy is imported before a command runs."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from sae import builtin, log
from sae.arguments import configured, take_flag, take_hints, take_option, take_options, take_positional
from sae.cli_catalogs import export, import_, judge
from sae.errors import ConfigError, SaeError, nearest

REPORT_HEADER = ("metric", "value", "95 % interval", "strongest control", "the dictionary is")


def harvest(arguments: list[str]) -> None:
    """Run a subject over inputs and keep the vectors: sae harvest CONFIG.yaml [--dry-run] [--setting value ...]."""
    from sae.activations.harvest import harvest as run
    from sae.activations.harvest import plan
    from sae.activations.harvest_config import HarvestConfig
    from sae.activations.reopen import open_harvested
    from sae.activations.verify import info as summary

    dry_run = take_flag(arguments, "--dry-run")
    settings = configured(HarvestConfig, arguments, "sae harvest")
    subject, inputs = open_harvested(settings, settings.device)
    if dry_run:
        planned = plan(subject, inputs, settings)
        _print_fields(dataclasses.asdict(planned) | {"hours": planned.hours})
        return
    store = run(subject, inputs, settings)
    _print_fields(summary(store.path) | _seen_share(settings.subject, inputs))


def train(arguments: list[str]) -> None:
    """Learn a dictionary from a store: sae train CONFIG.yaml [--resume] [--setting value ...]."""
    from sae.activations.reopen import open_store
    from sae.activations.store import ActivationStore
    from sae.training.config import TrainConfig
    from sae.training.loop import train as run

    resume = take_flag(arguments, "--resume")
    settings = configured(TrainConfig, arguments, "sae train")
    stores, opened = [ActivationStore(path) for path in settings.stores], {}
    if settings.end_to_end is not None:
        opened = dict(zip(("subject", "inputs"), open_store(settings.stores[0], settings.device), strict=True))
    dictionary = run(stores, settings, resume=resume, **opened)
    print(dictionary)
    print(f"saved in {settings.out / 'dictionary'}")


def evaluate(arguments: list[str]) -> None:
    """Score a dictionary on a store it was not trained on: sae evaluate CONFIG.yaml [--setting value ...]."""
    from sae.activations.reopen import open_store
    from sae.activations.store import ActivationStore
    from sae.dictionaries.io import load_dictionary
    from sae.evaluation.config import EvaluateConfig
    from sae.evaluation.evaluate import evaluate as run

    settings = configured(EvaluateConfig, arguments, "sae evaluate")
    dictionary, stores = load_dictionary(settings.dictionary), [ActivationStore(path) for path in settings.stores]
    subject, inputs = open_store(settings.stores[0], settings.device)
    evaluation = run(dictionary, stores, settings, subject, inputs)
    evaluation.save(settings.out)
    report = evaluation.report
    log.table(REPORT_HEADER, report.rows())
    log.table(*report.control_rows())
    print(f"saved in {settings.out / 'report.json'}, scores of single latents in latents.safetensors beside it")


def compare(arguments: list[str]) -> None:
    """Put reports on the same data side by side: sae compare REPORT REPORT ... [--out FOLDER]."""
    from sae.evaluation.compare import compare as run
    from sae.evaluation.compare_pictures import pareto_picture, profile_picture
    from sae.evaluation.report import Report

    out = take_option(arguments, "--out")
    comparison = run([Report.find(name) for name in arguments])
    log.table(*comparison.rows())
    if out is not None:
        comparison.save_table(Path(out) / "comparison.csv")
        print(f"pictures  {pareto_picture(comparison, Path(out) / 'pareto')}")
        print(f"          {profile_picture(comparison, Path(out) / 'profile')}")


def relate(arguments: list[str]) -> None:
    """Match the latents of several dictionaries: sae relate DICTIONARY DICTIONARY ... --store STORE --out FOLDER."""
    from sae.activations.reopen import open_store
    from sae.activations.store import ActivationStore
    from sae.dictionaries.io import load_dictionary
    from sae.evaluation.relate import RelateConfig
    from sae.evaluation.relate import relate as run

    n_names = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names = ["--dictionaries", *arguments[:n_names]] if n_names else []
    settings = configured(RelateConfig, [*names, *arguments[n_names:]], "sae relate")
    stores = [ActivationStore(path) for path in (settings.store, settings.other_store) if path is not None]
    subject, inputs = open_store(settings.store)
    tokenizer = getattr(subject, "tokenizer", None)
    decode = str if tokenizer is None else lambda token: tokenizer.decode([token])
    relation = run([load_dictionary(name) for name in settings.dictionaries], stores, settings, inputs, decode)
    log.table(relation.HEADER, relation.rows())
    print(f"saved in {settings.out}")


def catalog(arguments: list[str]) -> None:
    """Make a card of every latent: sae catalog DICTIONARY STORE --out CATALOG [--report REPORT]."""
    from sae.activations.reopen import open_store
    from sae.activations.store import ActivationStore
    from sae.dictionaries.io import load_dictionary
    from sae.features.building.build import build
    from sae.features.building.catalog_config import CatalogConfig

    if not {"-h", "--help"} & set(arguments):
        positional = take_positional(arguments, ("DICTIONARY", "STORE"), "sae catalog")
        arguments = ["--dictionary", positional[0], "--store", positional[1], *arguments]
    settings = configured(CatalogConfig, arguments, "sae catalog")
    dictionary, store = load_dictionary(settings.dictionary), ActivationStore(settings.store)
    subject, inputs = open_store(settings.store, settings.device)
    print(build(dictionary, store, settings, subject, inputs))
    print(f"saved in {settings.out}")


def show(arguments: list[str]) -> None:
    """Print a latent's strongest examples: sae show DICTIONARY LATENT [--store STORE] [--examples N]."""
    from rich.console import Console

    from sae.activations.reopen import open_both, open_store
    from sae.dictionaries.io import load_dictionary
    from sae.dictionaries.sites import hookpoints_read
    from sae.features.show import ShowConfig
    from sae.features.show import show as run
    from sae.inputs.source import builtin_inputs

    if not {"-h", "--help"} & set(arguments):
        positional = take_positional(arguments, ("DICTIONARY", "LATENT"), "sae show")
        arguments = ["--dictionary", positional[0], "--latent", positional[1], *arguments]
    settings = configured(ShowConfig, arguments, "sae show")
    dictionary = load_dictionary(settings.dictionary)
    hookpoints_read(dictionary)  # refuses what cannot be shown before anything is opened
    if settings.store is None:
        subject_id = dictionary.provenance.get("subject")
        if subject_id is None:
            raise ConfigError(f"{settings.dictionary}: its file does not say which subject it reads; give --store.")
        subject, inputs = open_both(subject_id, builtin_inputs(subject_id))
    else:
        subject, inputs = open_store(settings.store)
    run(settings, dictionary, subject, inputs, Console())


def info(arguments: list[str]) -> None:
    """Say what a store or a dictionary holds: sae info PATH."""
    from sae.activations.verify import info as summary
    from sae.dictionaries import hub
    from sae.dictionaries.formats import registry as formats
    from sae.dictionaries.io import load_dictionary

    (path,) = take_positional(arguments, ("PATH",), "sae info")
    named = path.startswith((builtin.PREFIX, hub.PREFIX))
    if named or (Path(path) / "dictionary.json").is_file() or formats.detect(Path(path)):
        dictionary = load_dictionary(path)
        _print_fields({"dictionary": repr(dictionary), "sha256": dictionary.hash, **dictionary.provenance})
    else:
        _print_fields(summary(Path(path)))


def convert(arguments: list[str]) -> None:
    """Write a dictionary in another format: sae convert DICTIONARY OUT --format saelens|sparsify|sae [--HINT X ...].

    DICTIONARY is a folder or file of any library that is read, a builtin: or a hub: name. Hints say what its files do
    not, as load_dictionary takes them: --kind, --k, --threshold, --scale. OUT is a folder that is new or empty.
    """
    from sae.dictionaries.io import load_dictionary, writer

    form = take_option(arguments, "--format")
    source, target = take_positional(arguments, ("DICTIONARY", "OUT"), "sae convert")
    if form is None:
        raise ConfigError("usage: sae convert DICTIONARY OUT --format FORMAT; the format is missing.")
    write, out = writer(form), Path(target)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: is there already; give a folder that is new or empty.")
    dictionary = load_dictionary(source, **take_hints(arguments))
    write(dictionary, out)
    print(dictionary)
    print(f"saved in {out} as {form}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def push(arguments: list[str]) -> None:
    """Upload a dictionary to the hub: sae push DICTIONARY OWNER/NAME[/FOLDER] [--report REPORT --message M --private].

    DICTIONARY is a folder of any library that is read, a builtin: or a hub: name. The model card shows the report; if
    none is named, that in the dictionary's folder. It must be about this dictionary.
    """
    from sae.dictionaries import hub, io
    from sae.evaluation.report import FILE_NAME, Report

    private = take_flag(arguments, "--private")
    named, message = take_option(arguments, "--report"), take_option(arguments, "--message")
    source, target = take_positional(arguments, ("DICTIONARY", "OWNER/NAME[/FOLDER]"), "sae push")
    for other in arguments:
        raise ConfigError(f"{other}: not understood.{nearest(other, ('--report', '--message', '--private'))}")
    (repo, path_in_repo), folder = hub.repository(target), io.dictionary_folder(source)
    dictionary, rows = io.load_dictionary(folder), []
    path = folder / FILE_NAME if named is None else io.dictionary_folder(named)
    path = path / FILE_NAME if path.is_dir() else path
    if named is not None or path.is_file():
        report = Report.load(path)
        about, rows = report.about["dictionary"], report.rows()
        if about["sha256"] != dictionary.hash:
            raise ConfigError(
                f"{path}: about {about['source']}, sha256 {about['sha256']}; {source} has {dictionary.hash}."
            )
    card = hub.model_card(dictionary, repo, REPORT_HEADER, rows, path_in_repo=path_in_repo)
    settings: dict[str, Any] = {"path_in_repo": path_in_repo, "private": private, "message": message}
    print(hub.push(folder, repo, card, report=path if rows else None, **settings))


def verify(arguments: list[str]) -> None:
    """Check every hash and every count of a store: sae verify STORE."""
    from sae.activations.verify import verify as run

    (path,) = take_positional(arguments, ("STORE",), "sae verify")
    store = run(Path(path))
    print(f"{path}: all {len(list(store.manifest.files()))} files are as they were written.")


def hookpoints(arguments: list[str]) -> None:
    """List where vectors can be read in a subject: sae hookpoints SUBJECT."""
    from sae.subjects.load import load

    (name,) = take_positional(arguments, ("SUBJECT",), "sae hookpoints")
    rows = [(point.name, f"{point.d_in:,}", point.grid) for point in load(name).hookpoints().values()]
    log.table(("hookpoint", "width", "grid"), rows)


def serve(arguments: list[str]) -> None:
    """Show a catalog on a page of this machine: sae serve CATALOG [--port N] [--live STORE [--with DICTIONARY ...]].

    With the store that it was made from, the subject is loaded too, and the page answers questions about sentences,
    phrases and pictures; --with names dictionaries at its other hookpoints for circuits, as often as there are any.
    """
    from sae.features.catalog import Catalog

    port, store = take_option(arguments, "--port") or "8173", take_option(arguments, "--live")
    others = take_options(arguments, "--with")
    (path,) = take_positional(arguments, ("CATALOG",), "sae serve")
    if not port.isdecimal():
        raise ConfigError(f"--port {port}: must be a number.")
    if others and store is None:
        raise ConfigError("--with: needs --live STORE, which loads the subject.")
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise ConfigError("needs the packages starlette and uvicorn: pip install 'sae-dictionaries[serve]'.")
    from sae.server.run import serve as run

    catalog, asks = Catalog.open(path), {}
    if store is not None:
        from sae.features.live.asks import asks_of
        from sae.features.live.opening import open_loaded
        from sae.lab.change.live import SteerAsk

        loaded = open_loaded(catalog, Path(store), others)
        asks, steer = asks_of(loaded), SteerAsk.of(loaded, Path(store))
        asks |= {} if steer is None else {"steer": steer}
    run(catalog, int(port), asks, lambda address: print(f"{catalog!r}\n{address}  (Ctrl-C ends it)", flush=True))


def circuit(arguments: list[str]) -> None:
    """Trace a latent to others: sae circuit CATALOG LATENT --live STORE [--with DICTIONARY ...] [--out FILE.json].

    --with names dictionaries at other hookpoints of the subject, as often as there are any; STORE is the one that the
    catalog was made from. Effects are per firing of the latent; control is what an ablation has to exceed.
    """
    from sae.features.catalog import Catalog, write_json
    from sae.features.circuits.circuit import circuit as run
    from sae.features.circuits.graph import HEADER
    from sae.features.live.opening import open_loaded

    store, out, others = (
        take_option(arguments, "--live"),
        take_option(arguments, "--out"),
        take_options(arguments, "--with"),
    )
    path, latent = take_positional(arguments, ("CATALOG", "LATENT"), "sae circuit")
    if store is None or not latent.isdecimal():
        raise ConfigError(
            "usage: sae circuit CATALOG LATENT --live STORE; the store or the latent's number is missing."
        )
    found = run(open_loaded(Catalog.open(path), Path(store), others), int(latent))
    print(f"latent {found.latent}, {found.title}: {found.n_firings} firings in {found.n_examples} examples")
    log.table(HEADER, found.rows())
    if out is not None:
        write_json(Path(out), found.to_json())
        print(f"saved in {out}")


def lab(arguments: list[str]) -> None:
    """Change something and watch: sae lab METHOD [CONFIG.yaml] [--setting value ...]; sae lab --help lists methods."""
    from sae.lab.methods import run_method, usage

    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    found, settings = run_method(arguments[0], arguments[1:])
    for columns, rows in groupby(found.rows, key=tuple):
        log.table(columns, [list(row.values()) for row in rows])
    log.table(("figure", "value"), list(found.figures.items()))
    print(found.verdict)
    for folder in settings.folders(found.method):
        found.save(folder, settings.settings())
        print(f"saved in {folder}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    command.__name__.rstrip("_"): command
    for command in (
        *(harvest, train, evaluate, compare, relate, catalog, show, circuit, lab),
        *(serve, export, import_, judge),
        *(info, convert, push, verify, hookpoints),
    )
}

UNCONFIGURED = (
    *("compare", "circuit", "serve", "export", "import", "judge"),
    *("info", "convert", "push", "verify", "hookpoints"),
)
"""Commands without a config, whose help is their docstring."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 2 after a user's error, 130 after Ctrl-C, 143 after SIGTERM."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = take_flag(words, "--debug")
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    name, *rest = words
    try:
        if name not in COMMANDS:
            raise ConfigError(f"unknown command {name!r}.{nearest(name, COMMANDS)}")
        if rest and rest[0] in ("-h", "--help") and name in UNCONFIGURED:
            print(inspect.getdoc(COMMANDS[name]))
            return 0
        log.setup()
        COMMANDS[name](rest)
    except SaeError as error:
        if debug:
            raise
        print(f"sae {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"sae {name}: {error or 'interrupted'}", file=sys.stderr)
        return getattr(error, "exit_code", 130)
    return 0


def _usage() -> str:
    lines = ["usage: sae COMMAND ...   (sae COMMAND --help lists its settings; --debug shows the traceback)", ""]
    lines += [f"  {name:<11} {(command.__doc__ or '').partition(chr(10))[0]}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def _seen_share(subject_id: str, inputs: Any) -> dict[str, str]:
    """Say how much of a built-in corpus its subject was trained on, where both know."""
    if not subject_id.startswith(builtin.PREFIX) or not hasattr(inputs, "seen_share"):
        return {}
    share = inputs.seen_share(builtin.subject_folder(subject_id))
    return {"seen_by_subject": f"{share:.1%} of characters lie in chunks the subject was trained on"}


def _print_fields(fields: dict[str, Any]) -> None:
    """Print plain data as a table, nested mappings under dotted names."""
    log.table(("what", "value"), list(_flat(fields)))


def _flat(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", log.format_number(value)


if __name__ == "__main__":
    sys.exit(main())
