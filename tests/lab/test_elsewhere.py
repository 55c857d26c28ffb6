"""Methods run with the dictionary and the subject on a device that is not the CPU, on a machine that has none."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import device
from live_catalogs import image_catalog

from sae.lab.methods import METHODS
from sae.lab.typography import defences

FEW: dict[str, dict[str, Any]] = {
    "search": {"n_images": 8},
    "visualise": {
        "n_latents": 2, "steps": 2, "n_pictures": 20, "cosine": 1.0, "n_diverse": 2,
        "facets": ("cat",), "facet_family": "class", "ways": ("fourier", "accentuate"),
    },
    "levels": {"unit": "latent:1"},
    "regimes": {},
    "reading": {},
    "ablate": {},
    "lesion": {},
    "steer": {"latent": 1, "unit": "activation", "n_examples": 4, "n_controls": 2},
    "attack": {"n_pairs": 8, "n_tried": 4, "heights": (0.4,), "fonts": ()},
}  # fmt: skip


def test_the_device_refuses_what_is_on_two_devices_and_computes_the_rest() -> None:
    x = torch.arange(6.0).view(2, 3)
    with device() as there:
        away = x.to(there)
        assert str(away.device) == there and torch.equal((away @ away.T).cpu(), x @ x.T)
        assert (away + torch.tensor(1.0))[torch.tensor([1])].tolist() == [[4, 5, 6]]
        layer = torch.nn.Linear(3, 2).to(there)
        layer(away).sum().backward()
        assert torch.equal(layer.weight.grad.cpu(), x.sum(0).expand(2, 3))  # type: ignore[union-attr]
        filled = torch.zeros(3, device=there)
        filled[1:] = torch.ones(2)
        assert filled.tolist() == [0, 1, 1]
        for mixed in (
            lambda: away + x,
            lambda: x[away[0].long().clamp(max=1)],
            lambda: filled.index_put_((torch.tensor([0, 1]),), torch.ones(2)),
            lambda: torch.cat([away, x]),
        ):
            with pytest.raises(RuntimeError, match="on two devices"):
                mixed()
        with pytest.raises(TypeError, match="copy it to the CPU"):
            away.numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elsewhere")
    image_catalog(made)
    return made


@pytest.mark.parametrize("method", FEW)
def test_methods_run_elsewhere(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defences, "LEARNING_STEPS", 2)
    module: Any = import_module(METHODS[method])
    with device() as there:
        config = module.Config(
            dictionary=str(folder / "dictionary"), store=folder / "store", device=there, **FEW[method]
        )
        assert module.run(config).verdict
