"""The whole job through the command line, on a tiny local model and a text file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from sae import cli
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.arguments import configured
from sae.dictionaries.io import load_dictionary, save_dictionary
from sae.dictionaries.registry import decode_config, make_dictionary
from sae.inputs.configs import ImageInputsConfig
from sae.lab.finding import Finding
from sae.lab.workbench import WorkbenchConfig

HOOKPOINT = "blocks.0.mlp.hook_post"
WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "a", "dog", "ran", "after", "the", "cat"]


@pytest.fixture(scope="module")
def job(tiny_gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text and the settings of harvest, train and evaluate; the first two have been run."""
    folder = tmp_path_factory.mktemp("job")
    text = "\n\n".join(" ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(60)) for i in range(40))
    (folder / "text.txt").write_text(text)
    settings = {
        "harvest": {
            "subject": f"language:{tiny_gpt2_folder}",
            "inputs": {"kind": "text", "path": str(folder / "text.txt"), "context": 32},
            "hookpoints": [HOOKPOINT],
            "out": str(folder / "store"),
            "batch_examples": 8,
            "shard_examples": 16,
        },
        "train": {
            "store": str(folder / "store"),
            "hookpoint": HOOKPOINT,
            "out": str(folder / "run"),
            "dictionary": {"kind": "topk", "d_sae": 64, "k": 4},
            "n_vectors": 4000,
            "batch_vectors": 128,
            "log_every_steps": 5,
        },
        "evaluate": {
            "dictionary": str(folder / "run" / "dictionary"),
            "store": str(folder / "store"),
            "out": str(folder / "run"),
        },
    }
    for name, values in settings.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["harvest", str(folder / "harvest.yaml")]) == 0
    assert cli.main(["train", str(folder / "train.yaml")]) == 0
    return folder


def test_evaluate_reports_and_show_prints(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(job / "evaluate.yaml"), "--n-spliced-examples", "8"]) == 0
    printed = capsys.readouterr().out
    assert "ce_recovered" in printed and "fvu" in printed
    assert (job / "run" / "report.json").is_file()
    # Some latent fires: the first eight cannot all be silent with four of sixty-four on every token.
    texts = []
    for latent in range(8):
        command = [
            "show",
            str(job / "run" / "dictionary"),
            str(latent),
            "--store",
            str(job / "store"),
            "--examples",
            "2",
        ]
        assert cli.main(command) == 0
        texts.append(capsys.readouterr().out)
    assert any("[" in text and "position" in text for text in texts)


def test_catalog_makes_a_card_of_every_latent(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sae.features.catalog import Catalog

    command = ["catalog", str(job / "run" / "dictionary"), str(job / "store"), "--out", str(tmp_path / "catalog")]
    assert cli.main([*command, "--context", "5", "--examples.top", "3"]) == 0
    assert "<catalog of 64 latents" in capsys.readouterr().out
    catalog = Catalog.open(tmp_path / "catalog")
    fired = [card for card in catalog.latents if card["statistics"]["n_fired"]]
    assert fired and all(1 <= len(card["examples"]["top"]) <= 3 for card in fired)
    assert {token.strip() for card in fired for token in card["examples"]["top"][0]["tokens"]} & set(WORDS)
    assert cli.main(command) == 2
    assert "choose another folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        cli.main(["catalog", "--help"])
    assert stopped.value.code == 0 and "--near-vectors" in capsys.readouterr().out


def test_training_through_the_subject_opens_what_was_harvested(job: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((job / "train.yaml").read_text())
    settings |= {"end_to_end": {"loss": "kl"}, "out": str(tmp_path / "run"), "n_vectors": 1000}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    assert cli.main(["train", str(tmp_path / "train.yaml")]) == 0
    assert "loss_kl" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert cli.main(["train", str(tmp_path / "train.yaml"), "--resume", "--end-to-end.loss", "ce"]) == 2


def test_show_takes_a_crosscoder_over_layers(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, store = [HOOKPOINT, "blocks.0.hook_resid_post"], str(tmp_path / "store")
    assert cli.main(["harvest", str(job / "harvest.yaml"), "--hookpoints", *names, "--out", store]) == 0
    settings = yaml.safe_load((job / "train.yaml").read_text())
    settings |= {"store": store, "hookpoint": names, "out": str(tmp_path / "run"), "n_vectors": 2000}
    settings["dictionary"] = {"kind": "topk", "d_sae": 8, "k": 4}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    assert cli.main(["train", str(tmp_path / "train.yaml")]) == 0
    capsys.readouterr()
    dictionary = load_dictionary(tmp_path / "run" / "dictionary")
    read = [ActivationStore(store).vectors(name, TRAINING_KINDS) for name in names]
    codes = dictionary.encode(torch.cat([part.read(0, len(part)) for part in read], 1)).dense().detach()
    value, latent = codes.max(0).values.max(0)
    where = ["--store", store, "--examples", "1"]
    assert cli.main(["show", str(tmp_path / "run" / "dictionary"), str(int(latent)), *where]) == 0
    assert f"{float(value):.3f}  example" in capsys.readouterr().out


def test_show_needs_to_know_the_subject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dictionary = make_dictionary(decode_config({"kind": "topk", "d_sae": 8, "k": 2}), 4)
    save_dictionary(dictionary, tmp_path, {"hookpoint": HOOKPOINT})
    assert cli.main(["show", str(tmp_path), "0"]) == 2
    assert "its file does not say which subject it reads; give --store." in capsys.readouterr().err
    sites = [{"subject": f"builtin:stdlib-1l@{seed}", "hookpoint": HOOKPOINT, "width": 2} for seed in (0, 1)]
    save_dictionary(dictionary, tmp_path, {"sites": sites})
    assert cli.main(["show", str(tmp_path), "0"]) == 2
    assert "reads several subjects (builtin:stdlib-1l@0" in capsys.readouterr().err


def test_circuit_prints_and_saves(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sae.features.catalog import Catalog

    catalog, dictionary, out = tmp_path / "catalog", str(job / "run" / "dictionary"), tmp_path / "circuit.json"
    assert cli.main(["catalog", dictionary, str(job / "store"), "--out", str(catalog), "--no-neurons"]) == 0
    rates = Catalog.open(catalog).latents.column("rate")
    command = ["circuit", str(catalog), str(int(rates.argmax())), "--live", str(job / "store")]
    capsys.readouterr()
    assert cli.main([*command, "--out", str(out)]) == 0
    printed, saved = capsys.readouterr().out, json.loads(out.read_text())
    assert "firings in" in printed and printed.count("output") == 6 == len(saved["edges"])
    assert cli.main([*command, "--with", dictionary]) == 2
    assert "a circuit is between hookpoints that come one after the other" in capsys.readouterr().err


def test_info_and_verify(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(job / "store")]) == 0
    assert HOOKPOINT in capsys.readouterr().out
    assert cli.main(["info", str(job / "run" / "dictionary")]) == 0
    assert "topk dictionary" in capsys.readouterr().out
    assert cli.main(["verify", str(job / "store")]) == 0
    assert "as they were written" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["harvest", str(job / "harvest.yaml"), "--dry-run", "--out", str(tmp_path / "other")]) == 0
    assert "n_bytes" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


def test_flags_override_the_file(job: Path, tmp_path: Path) -> None:
    flags = ["--inputs.n-examples", "5", "--out", str(tmp_path / "few")]
    assert cli.main(["harvest", str(job / "harvest.yaml"), *flags]) == 0
    saved = yaml.safe_load((tmp_path / "few" / "config.yaml").read_text())
    assert saved["inputs"]["n_examples"] == 5
    assert saved["hookpoints"] == [HOOKPOINT]


@pytest.mark.parametrize("word", ["null", "~", "None"])
def test_null_is_given_as_in_the_file(tmp_path: Path, word: str) -> None:
    inputs = "{kind: images, path: a, caption_column: txt, n_examples: 3}"
    (tmp_path / "harvest.yaml").write_text(f"subject: clip:x\ninputs: {inputs}\nhookpoints: [b]\nout: c\n")
    flags = ["--inputs.caption-column", word, "--inputs.n-examples", word, "--hookpoints", word]
    found = configured(HarvestConfig, [str(tmp_path / "harvest.yaml"), *flags], "sae harvest")
    assert isinstance(found.inputs, ImageInputsConfig) and found.inputs.path == Path("a")
    assert found.inputs.caption_column is None and found.inputs.n_examples is None
    assert found.hookpoints == (word,)  # a setting that cannot be null takes it as a word


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["harvest", "no-such.yaml"], "no-such.yaml: no such file."),
        (["verify"], "usage: sae verify STORE"),
        (["catalog", "only-one"], "usage: sae catalog DICTIONARY STORE"),
        (["circuit", "catalog", "3"], "usage: sae circuit CATALOG LATENT --live STORE"),
        (["info", "builtin:stdlib-2l/x"], "no such built-in dictionary"),
        (["hookpoints", "langage:gpt2"], "Did you mean"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_a_wrong_key_names_the_nearest(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load((job / "train.yaml").read_text())
    values["batch_vector"] = values.pop("batch_vectors")
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["train", str(tmp_path / "train.yaml")]) == 2
    assert "Did you mean 'batch_vectors'?" in capsys.readouterr().err


def test_help_names_every_command_and_needs_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in cli.COMMANDS)
    code = "import sys; from sae import cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_finding_of_several_tables_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"word": "owl", "wins": 3}, {"word": "cat", "wins": 1}, {"latent": 7}]
    found = Finding("attack", {}, {"success": 0.5}, rows, "Words win.")
    settings = WorkbenchConfig(dictionary="d", store=Path("s"))
    monkeypatch.setattr("sae.lab.methods.run_method", lambda name, words: (found, settings))
    assert cli.main(["lab", "attack"]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["word", "wins"] in printed and ["cat", "1"] in printed and ["latent"] in printed and ["7"] in printed


def test_every_shipped_config_decodes() -> None:
    from sae import config
    from sae.activations.harvest_config import HarvestConfig
    from sae.evaluation.config import EvaluateConfig
    from sae.training.config import TrainConfig

    types = {"harvest": HarvestConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    files = sorted((Path(cli.__file__).parents[1] / "configs").glob("*.yaml"))
    assert len(files) >= 12
    for file in files:
        config.load(types[file.name.partition("-")[0]], file)
        assert f"sae {file.name.partition('-')[0]} configs/{file.name}" in file.read_text().splitlines()[0]
