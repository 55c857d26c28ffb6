"""What the command line takes off its words by hand, where no config describes it."""

from pathlib import Path
from typing import Any, TypeVar

from sae.config import load
from sae.errors import ConfigError

Config = TypeVar("Config")


def take_flag(arguments: list[str], flag: str) -> bool:
    """Take a flag off the arguments; say whether it was there."""
    if flag in arguments:
        arguments.remove(flag)
        return True
    return False


def take_option(arguments: list[str], name: str) -> str | None:
    """Take `name VALUE` off the arguments; None where it is not there.

    Raises:
        ConfigError: the value is missing.
    """
    if name not in arguments:
        return None
    place = arguments.index(name)
    if place + 1 == len(arguments):
        raise ConfigError(f"{name}: needs a value.")
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


def take_options(arguments: list[str], name: str) -> list[str]:
    """Take `name VALUE` off the arguments as often as it is there."""
    found = []
    while (value := take_option(arguments, name)) is not None:
        found.append(value)
    return found


def take_hints(arguments: list[str]) -> dict[str, Any]:
    """Take `--name VALUE` pairs off the arguments, their values read as YAML.

    Raises:
        ConfigError: there is something else among them.
    """
    import yaml

    hints = {}
    while arguments:
        flag = arguments[0]
        if not flag.startswith("--"):
            raise ConfigError(f"{flag!r}: expected --name VALUE.")
        hints[flag.removeprefix("--")] = yaml.safe_load(take_option(arguments, flag) or "")
    return hints


def take_positional(arguments: list[str], names: tuple[str, ...], prog: str) -> list[str]:
    """Take the leading words off the arguments.

    Raises:
        ConfigError: fewer than wanted were given.
    """
    taken = [word for word in arguments[: len(names)] if not word.startswith("-")]
    if len(taken) < len(names):
        raise ConfigError(f"usage: {prog} {' '.join(names)}; got {' '.join(arguments) or 'nothing'}.")
    del arguments[: len(names)]
    return taken


def _null(type_info: Any) -> Any:
    """Have None given, and shown, as YAML has it; Python's word for it stays allowed."""
    from tyro.constructors import PrimitiveConstructorSpec

    if type_info.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="null",
        instance_from_str=lambda _: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda _: ["null"],
        choices=("null", "~", "None"),
    )


def configured(config_type: type[Config], arguments: list[str], prog: str) -> Config:
    """Read the YAML file if the first argument is one, then let flags override single settings."""
    import tyro

    flags_of = tyro.conf.configure(tyro.conf.AvoidSubcommands)(config_type)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_null)
    with registry:
        if not arguments or arguments[0].startswith("-"):
            return tyro.cli(flags_of, args=arguments, prog=prog)
        default = load(config_type, Path(arguments[0]))
        return tyro.cli(flags_of, default=default, args=arguments[1:], prog=prog)
