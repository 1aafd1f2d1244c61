"""YAML as people mean it: `1e-4` is a number, `no` is a word, an alias cannot explode, and nothing is executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sevenfold.core.errors import ConfigError

LARGEST = 1 << 20
"""Bytes of the largest recipe that is read."""
ALIASES = 100
DEEPEST = 50
LONGEST = 200
"""Characters of a number; a million digits would take minutes to tell from a word."""


class _Loader(yaml.SafeLoader):
    aliases = 0
    depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """What a word is taken for: beyond LONGEST characters, a word."""
        if kind is yaml.ScalarNode and len(value or "") > LONGEST:
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > ALIASES:
                raise yaml.YAMLError(f"more than {ALIASES} aliases")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool) or key in seen:
                raise yaml.YAMLError(
                    f"line {key_node.start_mark.line + 1}: the key {key!r} is not usable or stands twice"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp) for tag, regexp in pairs if tag.rpartition(":")[2] not in ("bool", "float", "int", "timestamp")
    ]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?([0-9][0-9_]*)?\.?[0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


def parse(text: str, where: str = "") -> Any:
    """Plain data from YAML text. `where` names it in the error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark is not None else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place or 'YAML'}: not readable as YAML: {problem}") from None


def read(path: str | Path) -> Any:
    """Plain data from a YAML file of at most 1 MiB."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST >> 20} MiB, which no recipe is")
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, not a recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back: words that it would take for numbers are quoted."""


_Dumper.yaml_implicit_resolvers = dict(_Loader.yaml_implicit_resolvers)


def write(data: Any) -> str:
    """YAML text of plain data, keys in their order; `parse` gives the same data back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
