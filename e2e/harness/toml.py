"""Writing TOML: the tables of a configuration, by name."""

import json
import re
from typing import Any

# By the name of the table, such as `issuer.scopes`; the keys outside any table are in the one without a name.
Tables = dict[str, dict[str, Any]]


def merged(tables: Tables, more: Tables) -> Tables:
    """Both; where both have a key, `more` counts."""
    return {name: {**tables.get(name, {}), **more.get(name, {})} for name in {**tables, **more}}


def toml(tables: Tables) -> str:
    """The text. Its strings are written as in JSON, which TOML reads alike."""
    nameless_first = sorted(tables.items(), key=lambda item: item[0] != "")
    lines: list[str] = []
    for name, table in nameless_first:
        lines += [f"[{name}]"] if name else []
        lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    return "\n".join([*lines, ""])


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    return json.dumps(value, ensure_ascii=False)
