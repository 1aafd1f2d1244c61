"""Files that lie elsewhere, brought when they are asked for, and only so many bytes of them kept here: those not used for longest go.

Processes of one machine share what is here. A file is brought by one of them, under a lock, and has its name when it is whole and
checked; one that is mapped to memory may go, for its pages stay with those who read them.
"""

from __future__ import annotations

import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sevenfold.core.locks import locked
from sevenfold.data.line import Files, mapped
from sevenfold.data.remote import Fact, brought, usable

PARTLY = re.compile(r"\.tmp-(.+)-[0-9a-f]{8}")
YOUNG = 60
"""Seconds: a file that somebody wrote to so lately is being brought, also where locks say nothing."""
T = TypeVar("T")


class Kept:
    """Some files that lie elsewhere, as files of one folder. Their names change with their content: one that another run needs is
    another file, and those that nobody asks for any more go like the rest."""

    def __init__(self, urls: dict[str, str], folder: Path, files: dict[str, Fact], limit: int, verify: bool):
        """`urls`: name → where it lies; `files`: what they are; `limit`: bytes of them; `verify`: whether one that was here before is checked by its hash
        when this process first uses it."""
        self.urls, self.folder, self.files, self.limit, self.verify = urls, folder, files, limit, verify
        self._checked: set[str] = set()
        self._asked: tuple[int, queue.SimpleQueue[str]] | None = None
        with usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(self._lock("room")):
                self._clear(0)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_asked": None}

    def used(self, name: str, use: Callable[[Path], T]) -> T:
        """What `use` makes of a file, which does not go meanwhile."""
        with locked(self._lock(name)):
            return use(self._brought(name))

    def ahead(self, names: Sequence[str]) -> None:
        """Bring some files while other work goes on. What goes wrong is met again by who needs them."""
        if self._asked is None or self._asked[0] != os.getpid():
            self._asked = os.getpid(), queue.SimpleQueue()
            threading.Thread(target=self._bring_each, args=(self._asked[1],), daemon=True).start()
        for name in names:
            self._asked[1].put(name)

    def _bring_each(self, names: queue.SimpleQueue[str]) -> None:
        while True:
            name = names.get()
            with suppress(Exception), locked(self._lock(name), wait=False) as ours:
                if ours:
                    self._brought(name)

    def _lock(self, name: str) -> Path:
        return self.folder / ".locks" / name

    def _brought(self, name: str) -> Path:
        """The path of a file whose lock is held."""
        path, fact = self.folder / name, self.files[name]
        trusted = not self.verify or name in self._checked
        with usable(self.folder):
            brought(self.urls[name], path, fact, trusted, lambda: self._room(name, fact["size"]))
            os.utime(path)
        self._checked.add(name)
        return path

    def _room(self, name: str, size: int) -> Path:
        """A file of `size` bytes to bring one into, once there is room for it. Its size is taken at once, so that processes that bring
        others at the same time count it."""
        with locked(self._lock("room")):
            self._clear(size, name)
            partly = self.folder / f".tmp-{name}-{secrets.token_hex(4)}"
            with open(partly, "wb") as file:
                file.truncate(size)
            return partly

    def _clear(self, size: int, name: str = "") -> None:
        """Make room for `size` bytes: those not used for longest go, and what is left of other tries to bring `name`."""
        here = []
        total = 0
        for path in self.folder.iterdir():
            partly = PARTLY.fullmatch(path.name)
            of = partly[1] if partly else path.name
            with suppress(FileNotFoundError):
                stat = path.stat()
                if path.is_file():
                    total += stat.st_size
                    if not partly or time.time() - stat.st_mtime > YOUNG:
                        here.append((of != name, stat.st_mtime_ns, stat.st_size, path, of))
        for other, _, held, path, of in sorted(here):
            if other and total + size <= self.limit:
                return
            with nullcontext(True) if not other else locked(self._lock(of), wait=False) as free:
                if free:
                    path.unlink(missing_ok=True)
                    total -= held


class Far(Files):
    """Files of ids that lie elsewhere."""

    def __init__(self, kept: Kept, names: dict[str, str], group: int | None):
        """`names`: name → that under which it is kept."""
        super().__init__(group)
        self.kept, self.names = kept, names

    def opened(self, path: Path) -> np.ndarray:
        return self.kept.used(self.names[path.name], mapped)

    def ahead(self, paths: Sequence[Path]) -> None:
        self.kept.ahead([self.names[path.name] for path in paths])
