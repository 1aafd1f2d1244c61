"""Part, Config, and the look-up of one by its room and kind.

A *part* is a class that a recipe names by `kind`. Its frozen `Config` is nested in it. A *room* is a package whose
`__init__.py` holds the contract (a Part without a kind) and whose every other file holds one part; the file's name is
the kind. A field typed as the contract's Config accepts any part of that room:

    position: {kind: rotary}      imports sevenfold/blocks/position/rotary.py and nothing else

Parts from elsewhere come from installed packages through the entry-point group `sevenfold.parts`, under the name
`room.kind`. A file can never name an import path.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.rooms import entry_points, kinds, module_of


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w -]{0,99}", name):
        raise PydanticCustomError("name", "a name is letters, digits, _ and -, at most 100 of them")
    return name


Name = Annotated[str, AfterValidator(_checked_name)]
"""The name of a stream, trunk or head: it becomes the name of a module and of a folder, so it leads nowhere else."""


class Config(BaseModel):
    """A frozen, keyword-only record of settings. Unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
    part: ClassVar[Any] = None

    @model_validator(mode="wrap")
    @classmethod
    def _by_kind(cls, value: Any, handler: Any) -> Any:
        if isinstance(value, cls):
            return value
        part = cls.part
        if part is not None:
            if isinstance(value, str):
                value = {"kind": value}
            if isinstance(value, dict):
                value = dict(value)
                kind = value.pop("kind", None)
                if part.kind is None:
                    if not isinstance(kind, str):
                        raise PydanticCustomError(
                            "kind", "{why}", {"why": f"needs a kind, one of: {', '.join(kinds(part.room))}"}
                        )
                    try:
                        leaf = find(part.room, kind)
                    except (ConfigError, ImportError) as error:
                        raise PydanticCustomError("kind", "{why}", {"why": str(error)}) from None
                    return leaf.Config.model_validate(value)
                if kind not in (None, part.kind):
                    raise PydanticCustomError("kind", "{why}", {"why": f"is a {part.kind!r}, not a {kind!r}"})
        if isinstance(value, dict):
            for name in value:
                if name not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown",
                        "{why}",
                        {
                            "why": f"unknown field {name!r}{did_you_mean(name, cls.model_fields)}",
                            "field": str(name),
                        },
                    )
            value = {name: cls._with_default_kind(name, given) for name, given in value.items()}
        return handler(value)

    @classmethod
    def _with_default_kind(cls, name: str, given: Any) -> Any:
        """Settings that name no kind are those of the field's default kind."""
        default = cls.model_fields[name].default
        if isinstance(default, str) and isinstance(given, dict) and "kind" not in given:
            return {"kind": default, **given}
        return given

    @property
    def kind(self) -> str:
        """The part's kind, the name of its file."""
        return self.part.kind

    def build(self, *args: Any, **context: Any) -> Any:
        """The part itself: `Part(config, …)`, its first weights filled by its rules where it has any."""
        made = self.part(self, *args, **context)
        begin = getattr(made, "begin", None)
        if begin is not None:
            begin()
        return made

    def replace(self, **changes: Any) -> Self:
        """A copy with fields changed, validated again."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})


class Part:
    """Anything that a recipe names by `kind`."""

    room: ClassVar[str]
    kind: ClassVar[str | None] = None
    Config: ClassVar[type[Config]] = Config
    variants: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Settings other than the defaults with which the conformance kit builds it too (see sevenfold.conformance)."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        contract = "room" in cls.__dict__
        cls.kind = None if contract else _kind_of(cls)
        if "Config" not in cls.__dict__:
            base, made = cls.Config, {"__module__": cls.__module__, "__qualname__": f"{cls.__name__}.Config"}
            cls.Config = types.new_class("Config", (base,), exec_body=lambda body: body.update(made))
        cls.Config.part = cls


def default(kind: str) -> Any:
    """The default of a config's field that holds a part: the part of that kind."""
    return Field(default=kind)


def _kind_of(cls: type) -> str:
    for name, module in entry_points().items():
        room, _, kind = name.partition(".")
        if module == cls.__module__ and room == getattr(cls, "room", room):
            return kind
    return cls.__module__.rpartition(".")[2]


@cache
def find(room: str, kind: str) -> Any:
    """The part class called `kind` in `room`, importing its file and nothing else."""
    module = importlib.import_module(module_of(room, kind))
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Part)
        and value.__module__ == module.__name__
        and getattr(value, "room", None) == room
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__file__}: a part's file holds exactly one part of room {room!r}, not {len(found)}")
    return found[0]


C = TypeVar("C", bound=Config)


def decode(cls: type[C], data: Any, where: str = "") -> C:
    """A Config from plain data. `where` names the place (a file, say) in the error.

    Raises ConfigError: one line, with the dotted path and what to do.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_one_line(error, where)) from None


def _one_line(error: ValidationError, where: str) -> str:
    first, *others = error.errors(include_url=False)
    place = [str(step) for step in first["loc"]]
    unknown = first.get("ctx", {}).get("field") if first["type"] == "unknown" else None
    path = ".".join([*place, *([unknown] if unknown else [])])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("unknown", "kind", "value_error", "missing"):
        shown = repr(first["input"])
        message = f"{message}, not {shown if len(shown) < 80 else shown[:77] + '...'}"
    more = f" (and {len(others)} more)" if others else ""
    return ": ".join(piece for piece in (where, path, message + more) if piece)


def encode(value: Any) -> Any:
    """Plain data (dicts, lists, strings, numbers) from a Config, complete, kinds included."""
    if isinstance(value, Config):
        fields = {name: encode(getattr(value, name)) for name in type(value).model_fields}
        named = value.part is not None and value.part.kind is not None
        return {"kind": value.kind, **fields} if named else fields
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def override(data: Any, path: str, value: Any) -> Any:
    """A copy of plain data with the dotted `path` set. Changing a `kind` drops the other kind's settings."""
    head, _, rest = path.partition(".")
    if isinstance(data, list):
        if not head.isdigit() or int(head) >= len(data):
            raise ConfigError(f"{path}: the list there has {len(data)} entries, numbered from 0")
        place = int(head)
        changed = override(data[place], rest, value) if rest else value
        return [*data[:place], changed, *data[place + 1 :]]
    if isinstance(data, str) and head != "kind":
        data = {"kind": data}
    data = dict(data) if isinstance(data, dict) else {}
    if not rest:
        if head == "kind" and data.get("kind") not in (None, value):
            return {"kind": value}
        return {**data, head: value}
    return {**data, head: override(data.get(head, {}), rest, value)}
