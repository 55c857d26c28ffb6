import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae import config
from sae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Big:
    kind: ClassVar[str] = "big"
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Small:
    kind: ClassVar[str] = "small"
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    out: Path
    what: Big | Small = field(default_factory=Big)
    mode: Literal["fast", "slow"] = "fast"
    names: tuple[str, ...] = ()
    limit: int | None = None
    lr: float = 0.1

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr: must be above 0, got {self.lr}.")


@given(
    st.builds(
        Job,
        out=st.just(Path("a/b")),
        what=st.one_of(st.builds(Big), st.builds(Small, rate=st.floats(0, 1e6))),
        mode=st.sampled_from(["fast", "slow"]),
        names=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5)).map(tuple),
        limit=st.none() | st.integers(-5, 10**9),
        lr=st.floats(1e-9, 1e9),
    )
)
def test_what_is_written_is_read_back(job: Job) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        config.save(job, path)
        assert config.load(Job, path) == job


def test_scientific_notation_is_a_float() -> None:
    assert config.decode(Job, {"out": "x", "lr": "1e-4"}).lr == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limits": 3}, "config.limits: unknown setting of Job. Did you mean 'limit'?"),
        ({"what": {"kind": "bigg"}}, "config.what.kind: unknown kind 'bigg'. Did you mean 'big'?"),
        ({"what": {"size": 3}}, "config.what: needs a kind."),
        ({"what": {"kind": "big", "rate": 1.0}}, "config.what.rate: unknown setting of Big."),
        ({"mode": "fats"}, "config.mode: unknown value 'fats'. Did you mean 'fast'?"),
        ({"limit": "big"}, "config.limit: expected int, got 'big'."),
        ({"limit": 2.5}, "config.limit: expected int, got 2.5."),
        ({"limit": True}, "config.limit: expected int, got True."),
        ({"lr": "quick"}, "config.lr: expected float, got 'quick'."),
        ({"names": "abc"}, "config.names: expected a list, got 'abc'."),
        ({"lr": -1.0}, "config: lr: must be above 0, got -1.0."),
    ],
)
def test_every_mistake_names_where_what_and_the_nearest(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.decode(Job, {"out": "x"} | change)
    assert message in str(caught.value)


def test_a_missing_setting_a_double_key_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Job needs out"):
        config.decode(Job, {})
    (tmp_path / "double.yaml").write_text("out: a\nout: b\n")
    with pytest.raises(ConfigError, match="key 'out' is given twice"):
        config.read_yaml(tmp_path / "double.yaml")
    (tmp_path / "photo.yaml").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ConfigError, match=r"photo\.yaml: not valid YAML"):
        config.read_yaml(tmp_path / "photo.yaml")
    with pytest.raises(ConfigError, match=r"Did you mean '.*double\.yaml'"):
        config.read_yaml(tmp_path / "duoble.yaml")


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.decode(Job, {"out": "x"}).lr = 2  # type: ignore[misc]
