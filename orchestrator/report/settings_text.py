"""Write the settings of a run as a recipe: the settings that differ from the defaults, in TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.config.schema import RunConfig
from orchestrator.report.reading.privacy import shareable


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the defaults; all settings if this version does not know some of them."""
    given: Mapping[str, Any] = settings
    with suppress(ValidationError):
        config = RunConfig.model_validate(settings)
        defaults = RunConfig.model_construct(**dict.fromkeys(("name", "num_steps", "prompts_per_step", "group_size")))
        given = difference(config, defaults)
    return {name: value for name, value in shareable(given).items() if value is not None}


def difference(section: BaseModel, default: BaseModel) -> dict[str, Any]:
    """Return the differences, section by section. A mapping is one value: a recipe's mapping replaces the default's."""
    usual = default.model_dump(mode="json", warnings=False)
    found: dict[str, Any] = {}
    for name, value in section.model_dump(mode="json").items():
        inner, inner_default = getattr(section, name), getattr(default, name, None)
        if isinstance(inner, BaseModel) and isinstance(inner_default, type(inner)):
            found |= {name: part} if (part := difference(inner, inner_default)) else {}
        elif value != usual.get(name):
            found[name] = value
    return found


def to_toml(settings: Mapping[str, Any]) -> str:
    """Return the settings as TOML. Unset settings are left out, because TOML has no null."""
    return "\n".join(lines(settings)).strip() + "\n"


def lines(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    sections = {name: value for name, value in table.items() if isinstance(value, Mapping) and value}
    for name, value in table.items():
        if name not in sections and value is not None and value != {}:
            yield f"{key(name)} = {literal(value)}"
    for name, section in sections.items():
        path = f"{prefix}{key(name)}"
        inner = list(lines(section, f"{path}."))
        if inner and not inner[0].startswith(("\n", "[")):
            yield f"\n[{path}]"
        yield from inner


def literal(value: Any) -> str:
    if isinstance(value, Mapping):
        known = {name: each for name, each in value.items() if each is not None}
        return "{" + ", ".join(f"{key(name)} = {literal(each)}" for name, each in known.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(each) for each in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value) if not isinstance(value, float) or isfinite(value) else f"{value}"


def key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else quoted(name)


def quoted(text: str) -> str:
    """Return a TOML string. JSON's is the same except for DEL and for characters beyond 16 bits, which stay as text."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key of each setting, and its value as TOML."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", literal(value)
