"""Torch's containers of modules, and what they hold: `ModuleList[Block]`, `ModuleDict[Trunk]`.

At run time these are torch's own classes; the type of what is inside is for readers and type checkers. A dict of ours takes any
name: torch's refuses those of its own methods, and a column of a table may be called `type` or `values`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView

    M = TypeVar("M", bound=nn.Module)

    class ModuleList(nn.Module, Generic[M]):
        def __init__(self, modules: Iterable[M] = ()) -> None: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[M]: ...
        def __getitem__(self, index: int) -> M: ...

    class ModuleDict(nn.Module, Generic[M]):
        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[str]: ...
        def __contains__(self, name: str) -> bool: ...
        def __getitem__(self, name: str) -> M: ...
        def __setitem__(self, name: str, module: M) -> None: ...
        def keys(self) -> KeysView[str]: ...
        def values(self) -> ValuesView[M]: ...
        def items(self) -> ItemsView[str, M]: ...
else:
    ModuleList = nn.ModuleList

    class ModuleDict(nn.ModuleDict):
        def __class_getitem__(cls, item):
            return cls

        def __setitem__(self, name, module):
            self._modules[name] = module
