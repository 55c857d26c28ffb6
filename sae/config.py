"""Strict translation between YAML files and frozen dataclasses.

Knows no schema of its own: it reads the fields and type hints of whatever dataclass it is given. Unknown keys, wrong
types and unknown kinds are errors that name the dotted path and the nearest allowed name.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from sae.errors import ConfigError, nearest

Config = TypeVar("Config")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise ConfigError(f"line {node.start_mark.line + 1}: key {key!r} is given twice.")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not hold a mapping.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file.{nearest(str(path), siblings)}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(data).__name__}.")
    return data


def load(config_type: type[Config], path: Path) -> Config:
    """Read a YAML file into a config dataclass."""
    return decode(config_type, read_yaml(path), where=str(path))


def save(config: Any, path: Path) -> None:
    """Write a config dataclass as YAML that `load` reads back unchanged."""
    Path(path).write_text(yaml.safe_dump(encode(config), sort_keys=False), encoding="utf-8")


def encode(value: Any) -> Any:
    """Turn a config dataclass into plain mappings, lists and scalars; a `kind` class variable comes first."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": type(value).kind} if _kind(type(value)) else {}  # type: ignore[attr-defined]
        return kind | {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(expected: Any, value: Any, where: str = "config") -> Any:
    """Build `expected`, a dataclass or a type hint, from plain data.

    Raises:
        ConfigError: with the dotted path, what was found and what is allowed.
    """
    if dataclasses.is_dataclass(expected):
        return _decode_dataclass(expected, value, where)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: unknown value {value!r}.{nearest(str(value), map(str, arguments))}")
        return value
    if origin in (tuple, list):
        return _decode_sequence(origin, arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}.")
        return {key: decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _decode_scalar(expected, value, where)


def _kind(config_type: type) -> str | None:
    return getattr(config_type, "kind", None)


def _decode_dataclass(expected: Any, value: Any, where: str) -> Any:
    if isinstance(value, expected):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected the settings of {expected.__name__}, got {value!r}.")
    hints = typing.get_type_hints(expected)
    fields = {f.name: f for f in dataclasses.fields(expected) if f.init}
    given = dict(value)
    if _kind(expected) and given.pop("kind", _kind(expected)) != _kind(expected):
        raise ConfigError(f"{where}.kind: expected {_kind(expected)!r}, got {value['kind']!r}.")
    for key in given:
        if key not in fields:
            raise ConfigError(f"{where}.{key}: unknown setting of {expected.__name__}.{nearest(str(key), fields)}")
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in given
    ]
    if required:
        raise ConfigError(f"{where}: {expected.__name__} needs {', '.join(required)}.")
    decoded = {key: decode(hints[key], item, f"{where}.{key}") for key, item in given.items()}
    try:
        return expected(**decoded)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _decode_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    kinds = {_kind(m): m for m in members if dataclasses.is_dataclass(m) and _kind(m)}  # type: ignore[arg-type]
    if kinds and isinstance(value, Mapping):
        kind = value.get("kind")
        if kind is None:
            raise ConfigError(f"{where}: needs a kind.{nearest('', [str(k) for k in kinds])}")
        if kind not in kinds:
            raise ConfigError(f"{where}.kind: unknown kind {kind!r}.{nearest(str(kind), [str(k) for k in kinds])}")
        return decode(kinds[kind], value, where)
    if len(members) == 1:
        return decode(members[0], value, where)
    messages = []
    for member in members:
        try:
            return decode(member, value, where)
        except ConfigError as error:
            messages.append(str(error))
    raise ConfigError("; or ".join(messages))


def _decode_sequence(origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {value!r}.")
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(value)}.")
        return tuple(decode(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(arguments, value, strict=True)))
    member = arguments[0] if arguments else Any
    return origin(decode(member, item, f"{where}[{i}]") for i, item in enumerate(value))


def _decode_scalar(expected: Any, value: Any, where: str) -> Any:
    if expected is Any or expected is None:
        return value
    if expected is Path and isinstance(value, str | Path):
        return Path(value)
    if expected is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-4 as a string, so numeric strings count as floats.
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: expected float, got {value!r}.") from None
    if isinstance(expected, type) and isinstance(value, expected) and isinstance(value, bool) == (expected is bool):
        return value
    raise ConfigError(f"{where}: expected {getattr(expected, '__name__', expected)}, got {value!r}.")
