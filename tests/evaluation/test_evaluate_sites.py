"""Transcoders and crosscoders, scored on what they write."""

from pathlib import Path

import pytest
import torch
from test_evaluate import LENGTH, LabelledTokens

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.clt import Clt, CltConfig
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import EvaluationError
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.evaluate import evaluate
from sae.evaluation.splicing import CONDITIONS, Splice, next_token_losses
from sae.subjects.load import load

MLP_IN, MLP_OUT, RESID = "blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out", "blocks.0.hook_resid_post"


def harvested(subject, folder: Path) -> ActivationStore:
    config = HarvestConfig(
        subject=subject.id,
        hookpoints=(MLP_IN, MLP_OUT, RESID),
        out=folder,
        dtype="float32",
        batch_examples=4,
        shard_examples=20,
    )
    return harvest(subject, LabelledTokens(), config)


@pytest.fixture(scope="module")
def subject(tiny_gpt2_folder: Path):
    return load(f"language:{tiny_gpt2_folder}")


@pytest.fixture(scope="module")
def store(subject, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvested(subject, tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def untrained_store(subject, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvested(load(f"untrained:{subject.id}"), tmp_path_factory.mktemp("store") / "untrained")


def settings(tmp_path: Path, **changes: object) -> EvaluateConfig:
    return EvaluateConfig(dictionary="here", store=tmp_path, out=tmp_path, **changes)  # type: ignore[arg-type]


def rows(store: ActivationStore, hookpoint: str) -> torch.Tensor:
    vectors = store.vectors(hookpoint, TRAINING_KINDS)
    return vectors.read(0, len(vectors))


def site(store: ActivationStore, hookpoint: str) -> dict[str, object]:
    return {"subject": store.subject_id, "hookpoint": hookpoint, "width": 16, "scale": 1.0}


@pytest.fixture
def transcoder(store: ActivationStore) -> Dictionary:
    dictionary = make_dictionary(TopKConfig(d_sae=48, k=6, skip=True), 16, 16)
    generator = torch.Generator().manual_seed(0)
    dictionary.initialise(rows(store, MLP_IN), generator, rows(store, MLP_OUT))
    assert dictionary.W_skip is not None
    torch.nn.init.normal_(dictionary.W_skip, std=0.3, generator=generator)
    dictionary.provenance = {"sites": [site(store, MLP_IN)], "target_sites": [site(store, MLP_OUT)]}
    return dictionary.requires_grad_(False)


def crosscoder(stores: list[ActivationStore], names: list[str]) -> Dictionary:
    x = torch.cat([rows(store, name) for store in stores for name in names], dim=1)
    dictionary = make_dictionary(TopKConfig(d_sae=48, k=6), x.shape[1])
    dictionary.initialise(x, torch.Generator().manual_seed(0))
    dictionary.provenance = {"sites": [site(store, name) for store in stores for name in names]}
    return dictionary.requires_grad_(False)


def fvu(x: torch.Tensor, x_hat: torch.Tensor) -> float:
    x, x_hat = x.double(), x_hat.double()
    return float(((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


class TestTranscoder:
    def test_it_is_scored_on_its_target_and_its_latents_on_what_they_read(
        self, subject, store: ActivationStore, transcoder: Dictionary, tmp_path: Path
    ) -> None:
        report = evaluate(transcoder, store, settings(tmp_path), subject, LabelledTokens()).report
        expected = fvu(rows(store, MLP_OUT), transcoder(rows(store, MLP_IN)))
        assert report["fvu"].value == pytest.approx(expected, rel=1e-6)
        assert report.about["hookpoint"] == f"{MLP_IN} -> {MLP_OUT}" and report.about["dictionary"]["d_out"] == 16
        assert {"unit_auc", "ce_recovered", "kl"} <= {score.name for score in report.scores}
        # Controls rebuild what is read, so their errors say nothing about it; nor do neurons that are not written.
        assert report.score("fvu", "neurons") is None and report.score("unit_auc", "neurons") is not None
        assert "resolution" not in report.details and not any("resolved" in score.name for score in report.scores)

    def test_splicing_replaces_the_output_by_what_is_made_of_the_input(
        self, subject, store: ActivationStore, transcoder: Dictionary
    ) -> None:
        batch = LabelledTokens().batch(0, 8)
        x = subject.run(batch, [MLP_IN])[MLP_IN]
        y = transcoder(x.flatten(0, 1)).view(8, LENGTH, 16)

        def by_hand(activation: torch.Tensor) -> torch.Tensor:
            return torch.cat([activation[:, :1], y[:, 1:]], dim=1)

        log_probs = subject.forward(batch, {MLP_OUT: by_hand})[:, 1:-1].log_softmax(-1)
        expected = -log_probs.gather(-1, batch.tokens[:, 2:, None])[..., 0]
        mean = rows(store, MLP_OUT).mean(0)
        splice = Splice(transcoder, (MLP_IN,), {MLP_OUT: mean})
        found = torch.stack([losses.spliced for losses in next_token_losses(splice, subject, [batch])])
        torch.testing.assert_close(found, expected)

    def test_without_a_target_it_cannot_be_scored(
        self, store: ActivationStore, transcoder: Dictionary, tmp_path: Path
    ) -> None:
        del transcoder.provenance["target_sites"]
        with pytest.raises(EvaluationError, match="lists no target_sites"):
            evaluate(transcoder, store, settings(tmp_path))


class TestCrosscoder:
    def test_over_layers_every_site_has_its_own_error(self, subject, store: ActivationStore, tmp_path: Path) -> None:
        dictionary = crosscoder([store], [MLP_OUT, RESID])
        report = evaluate(dictionary, store, settings(tmp_path), subject, LabelledTokens()).report
        x = torch.cat([rows(store, MLP_OUT), rows(store, RESID)], dim=1)
        x_hat = dictionary(x)
        assert report["fvu"].value == pytest.approx(fvu(x, x_hat), rel=1e-6)
        found = {row["hookpoint"]: row["fvu"] for row in report.details["sites"]}
        assert found[MLP_OUT] == pytest.approx(fvu(x[:, :16], x_hat[:, :16]), rel=1e-6)
        assert found[RESID] == pytest.approx(fvu(x[:, 16:], x_hat[:, 16:]), rel=1e-6)
        assert {"unit_auc", "ce_recovered"} <= {score.name for score in report.scores}
        assert report.score("fvu", "neurons") is not None

    def test_splicing_replaces_all_sites_at_once(self, subject, store: ActivationStore) -> None:
        dictionary, batch = crosscoder([store], [MLP_OUT, RESID]), LabelledTokens().batch(0, 4)
        read = subject.run(batch, [MLP_OUT, RESID])
        x_hat = dictionary(torch.cat([read[MLP_OUT], read[RESID]], dim=-1).flatten(0, 1)).view(4, LENGTH, 32)
        means = {name: rows(store, name).mean(0) for name in (MLP_OUT, RESID)}
        conditions = Splice(dictionary, (MLP_OUT, RESID), means).conditions(subject, batch)
        found = {name: subject.forward(batch, edits) for name, edits in conditions}
        assert tuple(found) == CONDITIONS and torch.equal(found["clean"], subject.forward(batch))
        spliced = subject.forward(batch, {RESID: lambda x: torch.cat([x[:, :1], x_hat[:, 1:, 16:]], dim=1)})
        torch.testing.assert_close(found["spliced"], spliced)  # nothing else reads the first block's MLP
        averaged = subject.forward(
            batch, {RESID: lambda x: torch.where(torch.arange(LENGTH)[:, None] > 0, means[RESID], x)}
        )
        torch.testing.assert_close(found["mean"], averaged)

    def test_over_subjects_it_needs_a_store_of_each_and_is_not_spliced(
        self,
        subject,
        store: ActivationStore,
        untrained_store: ActivationStore,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        dictionary = crosscoder([store, untrained_store], [RESID])
        stores = [store, untrained_store]
        report = evaluate(dictionary, stores, settings(tmp_path), subject, LabelledTokens()).report
        x = torch.cat([rows(one, RESID) for one in stores], dim=1)
        assert report["fvu"].value == pytest.approx(fvu(x, dictionary(x)), rel=1e-6)
        assert [row["subject"] for row in report.details["sites"]] == [subject.id, f"untrained:{subject.id}"]
        assert report.about["subject"]["id"] == f"{subject.id} + untrained:{subject.id}"
        assert "of several subjects or towers" in caplog.text and "kl" not in report
        with pytest.raises(EvaluationError, match="needs a store of each"):
            evaluate(dictionary, store, settings(tmp_path))

    def test_an_untrained_control_is_for_one_hookpoint(self, subject, store: ActivationStore, tmp_path: Path) -> None:
        from sae.dictionaries.io import save_dictionary

        dictionary = crosscoder([store], [MLP_OUT, RESID])
        named = {"subject": f"untrained:{subject.id}", "hookpoint": f"{MLP_OUT} + {RESID}"}
        save_dictionary(dictionary, tmp_path / "control", named)
        given = settings(tmp_path, trained_controls={"untrained_subject": str(tmp_path / "control")})
        with pytest.raises(EvaluationError, match="compared at one hookpoint only"):
            evaluate(dictionary, store, given, subject, LabelledTokens())


def test_a_cross_layer_transcoder_replaces_all_mlps_at_once(subject) -> None:
    reads = ("blocks.0.mlp.hook_in", "blocks.1.mlp.hook_in")
    writes = ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out")
    batch = LabelledTokens().batch(0, 4)
    found = subject.run(batch, [*reads, *writes])
    x, y = (torch.cat([found[name] for name in names], dim=-1).flatten(0, 1) for names in (reads, writes))
    dictionary = Clt(CltConfig(d_sae=48, k=4, n_layers=2), 32, 32)
    dictionary.initialise(x, torch.Generator().manual_seed(0), y)
    means = {name: found[name].flatten(0, 1).mean(0) for name in writes}
    y_hat = dictionary(x).view(4, LENGTH, 32)
    conditions = Splice(dictionary, reads, means).conditions(subject, batch)
    spliced = {name: subject.forward(batch, edits) for name, edits in conditions}["spliced"]

    def by_hand(columns: slice):
        return lambda activation: torch.cat([activation[:, :1], y_hat[:, 1:, columns]], dim=1)

    expected = subject.forward(batch, {writes[0]: by_hand(slice(0, 16)), writes[1]: by_hand(slice(16, 32))})
    torch.testing.assert_close(spliced, expected)
