"""Circuits in a subject whose effects are known by hand."""

import json
from typing import Any

import pytest
import torch
from chain_subject import N_TEXTS, A, B, C, ChainSubject, Texts, drawn_dictionary, loaded_with

from sae.dictionaries.base import Dictionary
from sae.errors import CatalogError, ConfigError
from sae.features.circuits.circuit import CircuitAsk, Circuits, circuit
from sae.features.circuits.graph import HEADER, Circuit, CircuitConfig, Edge
from sae.features.live.asks import asks_of

SUBJECT, TEXTS = ChainSubject(), Texts()
EVERYTHING = CircuitConfig(n_examples=N_TEXTS, n_latents=24, n_outputs=11, n_controls=6, batch_examples=7)
WHOLE = TEXTS.batch(0, N_TEXTS)


def codes(dictionary: Dictionary, hookpoint: str) -> torch.Tensor:
    """Codes at every position but the BOS, times what their direction is multiplied with."""
    x = SUBJECT.run(WHOLE, [hookpoint])[hookpoint]
    found = dictionary.encode(x[:, 1:].flatten(0, 1))
    dense = found.dense() * (1 if found.row_deviation is None else found.row_deviation)
    return torch.cat([torch.zeros(N_TEXTS, 1, dictionary.d_sae), dense.unflatten(0, (N_TEXTS, -1))], dim=1)


def hand(source: Dictionary, z: torch.Tensor, reads: torch.Tensor, fires: torch.Tensor, maps: Any) -> torch.Tensor:
    """The effect of every source latent on one direction, over the positions where something fires."""
    total = torch.zeros(source.d_sae)
    for example in range(N_TEXTS):
        for position in fires[example].nonzero()[:, 0].tolist():
            for back, matrix in enumerate(maps):
                if position >= back:
                    total += z[example, position - back] * (source.W_dec @ matrix @ reads)
    return total


def edges(found: Circuit, layer: str) -> dict[Any, Edge]:
    nodes = {node.id: node for node in found.nodes}
    ends = [(nodes[edge.source], nodes[edge.target], edge) for edge in found.edges]
    pairs = [(source if target.layer == "centre" else target, edge) for source, target, edge in ends]
    return {node.title if layer == "output" else node.latent: edge for node, edge in pairs if node.layer == layer}


def most_active(dictionary: Dictionary, hookpoint: str) -> int:
    return int((codes(dictionary, hookpoint) > 0).sum((0, 1)).argmax())


@pytest.fixture(scope="module")
def own() -> Dictionary:
    return drawn_dictionary(SUBJECT, B, seed=5)


@pytest.mark.parametrize("settings", [{}, {"layer_norm": True}])
def test_upstream_effects_are_those_of_the_known_maps(own: Dictionary, settings: dict[str, Any]) -> None:
    earlier = drawn_dictionary(SUBJECT, A, seed=3, **settings)
    latent = most_active(own, B)
    found = circuit(loaded_with(SUBJECT, TEXTS, own, {"earlier": earlier}), latent, EVERYTHING)
    fires = codes(own, B)[..., latent] > 0
    expected = hand(earlier, codes(earlier, A), own.W_enc_rows[latent], fires, [SUBJECT.M, SUBJECT.S]) / fires.sum()
    drawn = edges(found, "upstream")
    assert found.n_firings == int(fires.sum()) and found.n_examples == N_TEXTS
    assert len(drawn) == int((expected != 0).sum()) > 8
    for latent_of, edge in drawn.items():
        assert edge.attribution == pytest.approx(float(expected[latent_of]), rel=1e-3, abs=1e-5)
        assert edge.ablation == pytest.approx(edge.attribution, rel=1e-3, abs=1e-5), "what lies between is linear"
    assert found.agreement["upstream"]["correlation"] == pytest.approx(1.0, abs=1e-4)


def test_downstream_effects_and_outputs_are_those_of_the_known_maps(own: Dictionary) -> None:
    later, latent = drawn_dictionary(SUBJECT, C, seed=7), most_active(own, B)
    found = circuit(loaded_with(SUBJECT, TEXTS, own, {"later": later}), latent, EVERYTHING)
    z, count = codes(own, B), found.n_firings
    drawn, answers = edges(found, "downstream"), edges(found, "output")
    assert len(drawn) > 8 and len(answers) == 11
    for target, edge in drawn.items():
        fires = codes(later, C)[..., target] > 0
        expected = hand(own, z, later.W_enc_rows[target], fires, [SUBJECT.N])[latent] / count
        assert edge.attribution == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
        assert edge.ablation == pytest.approx(edge.attribution, rel=1e-3, abs=1e-5)
    logits = (own.W_dec[latent] @ SUBJECT.N @ SUBJECT.U) * z[..., latent].sum() / count
    for name, edge in answers.items():
        expected = logits[int(name[1:])] - logits.mean()
        assert edge.attribution == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
        assert edge.ablation == pytest.approx(edge.attribution, rel=1e-3, abs=1e-5) and edge.activation is None


def test_the_change_of_an_activation_is_that_of_the_code(own: Dictionary) -> None:
    earlier, latent = drawn_dictionary(SUBJECT, A, seed=3), most_active(own, B)
    found = circuit(loaded_with(SUBJECT, TEXTS, own, {"earlier": earlier}), latent, EVERYTHING)
    z, before = codes(earlier, A), codes(own, B)[..., latent]
    source, edge = next(iter(edges(found, "upstream").items()))
    part = z[..., source, None] * earlier.W_dec[source]
    x: dict[str, torch.Tensor] = {}
    SUBJECT.forward(WHOLE, {A: lambda v: v - part, B: lambda v: x.setdefault("b", v)})
    after = own.encode(x["b"].flatten(0, 1)).dense()[:, latent].view(N_TEXTS, -1)
    change = torch.where(before > 0, before - after, 0.0).sum() / (before > 0).sum()
    assert edge.activation == pytest.approx(float(change), rel=1e-3)


def test_a_transcoder_is_read_where_it_reads_and_taken_out_where_it_writes(own: Dictionary) -> None:
    transcoder = drawn_dictionary(SUBJECT, A, seed=4, writes=B)
    later = drawn_dictionary(SUBJECT, C, seed=7)
    latent = most_active(later, C)
    found = circuit(loaded_with(SUBJECT, TEXTS, later, {"across": transcoder}), latent, EVERYTHING)
    fires = codes(later, C)[..., latent] > 0
    expected = hand(transcoder, codes(transcoder, A), later.W_enc_rows[latent], fires, [SUBJECT.N]) / fires.sum()
    drawn = edges(found, "upstream")
    assert len(drawn) > 8
    for source, edge in drawn.items():
        assert edge.attribution == pytest.approx(float(expected[source]), rel=1e-3, abs=1e-5)
        assert edge.ablation == pytest.approx(edge.attribution, rel=1e-3, abs=1e-5)


def test_only_the_largest_are_drawn_and_all_of_it_is_json(own: Dictionary) -> None:
    others = {"earlier": drawn_dictionary(SUBJECT, A, seed=3), "later": drawn_dictionary(SUBJECT, C, seed=7)}
    loaded, latent = loaded_with(SUBJECT, TEXTS, own, others), most_active(own, B)
    everything = circuit(loaded, latent, EVERYTHING)
    few = circuit(loaded, latent, CircuitConfig(n_examples=N_TEXTS, n_latents=3, n_outputs=2, n_controls=6))
    for layer, n in (("upstream", 3), ("downstream", 3), ("output", 2)):
        sizes = sorted((abs(edge.attribution) for edge in edges(everything, layer).values()), reverse=True)
        assert [abs(edge.attribution) for edge in edges(few, layer).values()] == sizes[:n]
        assert few.agreement[layer]["edges"] == n
    assert json.loads(json.dumps(few.to_json(), allow_nan=False))["title"] == f"card {latent}"
    rows = list(few.rows())
    assert len(rows) == len(few.edges) == 8 and all(len(row) == len(HEADER) for row in rows)
    ids = [node.id for node in few.nodes]
    assert len(ids) == len(set(ids)) and {end for edge in few.edges for end in (edge.source, edge.target)} == set(ids)


def test_names_are_what_latents_fire_on_and_write(own: Dictionary) -> None:
    loaded = loaded_with(SUBJECT, TEXTS, own, {"later": drawn_dictionary(SUBJECT, C, seed=7)})
    circuits = Circuits(loaded)
    z, latent = codes(own, B), most_active(own, B)
    mass = torch.zeros(11).index_add_(0, WHOLE.tokens.flatten(), z[..., latent].square().flatten())
    assert circuits.glossary.fires_on(circuits.own, latent) == [f"t{i}" for i in mass.topk(3).indices.tolist()]
    logits = own.W_dec[latent] @ SUBJECT.U
    written = circuits.glossary.writes(circuits.own, latent)
    assert written == [f"t{i}" for i in logits.topk(3).indices.tolist()]


def refuse(own: Dictionary, other: Dictionary, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Circuits(loaded_with(SUBJECT, TEXTS, own, {"other": other}))


def test_dictionaries_that_do_not_fit_are_refused(own: Dictionary) -> None:
    refuse(own, drawn_dictionary(SUBJECT, B, seed=1), f"other: reads {B}, the catalog's dictionary {B}")
    refuse(own, drawn_dictionary(SUBJECT, A, seed=1, writes=B), f"reads {A} and writes {B}")
    foreign = drawn_dictionary(SUBJECT, A, seed=1)
    foreign.provenance["sites"][0]["subject"] = "chain:two"
    refuse(own, foreign, "other: is of the subject chain:two; this circuit is in chain:one")
    crosscoder = drawn_dictionary(SUBJECT, A, seed=1)
    crosscoder.provenance["sites"] = [{"subject": SUBJECT.id, "hookpoint": one, "width": 3} for one in (A, B)]
    refuse(own, crosscoder, "several hookpoints")


def test_latents_without_a_circuit_are_refused(own: Dictionary) -> None:
    silent = drawn_dictionary(SUBJECT, B, seed=5)
    silent.b_enc[2] = -1e6
    loaded = loaded_with(SUBJECT, TEXTS, silent, {})
    with pytest.raises(CatalogError, match="latent 2: fires on none of the 12 examples"):
        circuit(loaded, 2)
    loaded.catalog.shown = []  # type: ignore[attr-defined]
    with pytest.raises(CatalogError, match="shows no example"):
        circuit(loaded, 3)
    with pytest.raises(ConfigError, match="n_latents: must be at least 1"):
        CircuitConfig(n_latents=0)


def test_the_page_may_ask(own: Dictionary) -> None:
    ask = asks_of(loaded_with(SUBJECT, TEXTS, own, {"later": drawn_dictionary(SUBJECT, C, seed=7)}))["circuit"]
    assert ask.about == {
        "upstream": [],
        "downstream": [{"name": "later", "hookpoint": C}],
        "output": "next tokens",
    }
    latent = most_active(own, B)
    assert json.loads(json.dumps(ask({"latent": latent}), allow_nan=False))["latent"] == latent
    for wrong in ({}, {"latent": "3"}, {"latent": True}):
        with pytest.raises(CatalogError, match="must be a number"):
            ask(wrong)


def test_without_others_and_outputs_there_is_nothing_to_ask(own: Dictionary) -> None:
    subject = ChainSubject()
    subject.predicts_next_token = False
    assert CircuitAsk.of(loaded_with(subject, TEXTS, own, {})) is None
