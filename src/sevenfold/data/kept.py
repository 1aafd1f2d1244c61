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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sevenfold.core.errors import DataError
from sevenfold.core.files import sha256
from sevenfold.core.locks import locked
from sevenfold.data.line import Files, mapped
from sevenfold.data.remote import Fact, fetch

PARTLY = re.compile(r"\.tmp-(.+)-[0-9a-f]{8}")
T = TypeVar("T")


class Kept:
    """Some files of one folder that lies at `url`."""

    def __init__(self, url: str, folder: Path, files: dict[str, Fact], limit: int, verify: bool):
        """`files`: those that are kept so; `limit`: bytes of them; `verify`: whether one that was here before is checked by its hash
        when this process first uses it."""
        self.url, self.folder, self.files, self.limit, self.verify = url, folder, files, limit, verify
        self._checked: set[str] = set()
        self._asked: tuple[int, queue.SimpleQueue[str]] | None = None

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
            with suppress(DataError, OSError), locked(self._lock(name), wait=False) as ours:
                if ours:
                    self._brought(name)

    def _lock(self, name: str) -> Path:
        return self.folder / ".locks" / name

    def _brought(self, name: str) -> Path:
        """The path of a file whose lock is held."""
        path, fact = self.folder / name, self.files[name]
        if path.is_file() and path.stat().st_size == fact["size"]:
            if not self.verify or name in self._checked or sha256(path) == fact["sha256"]:
                self._checked.add(name)
                os.utime(path)
                return path
        partly = self._room(name, fact["size"])
        try:
            fetch(f"{self.url}/{name}", partly, fact)
            os.replace(partly, path)
        finally:
            partly.unlink(missing_ok=True)
        self._checked.add(name)
        return path

    def _room(self, name: str, size: int) -> Path:
        """A file of `size` bytes to bring one into, once there is room for it. Its size is taken at once, so that processes that bring
        others at the same time count it."""
        with locked(self._lock("room")):
            here = []
            for path in self.folder.iterdir():
                of = PARTLY.fullmatch(path.name)
                if (of[1] if of else path.name) in self.files:
                    with suppress(FileNotFoundError):
                        stat = path.stat()
                        here.append((stat.st_mtime_ns, stat.st_size, path, of[1] if of else path.name))
            total = sum(size for _, size, _, _ in here)
            for _, held, path, of_name in sorted(here, key=lambda one: one[0]):
                ended = of_name == name  # what is left of another try: the lock is ours
                if total + size <= self.limit and not ended:
                    continue
                if ended:
                    path.unlink(missing_ok=True)
                    total -= held
                    continue
                with locked(self._lock(of_name), wait=False) as ours:
                    if ours:
                        path.unlink(missing_ok=True)
                        total -= held
            partly = self.folder / f".tmp-{name}-{secrets.token_hex(4)}"
            with open(partly, "wb") as file:
                file.truncate(size)
            return partly


class Far(Files):
    """Files of ids that lie elsewhere."""

    def __init__(self, kept: Kept, group: int | None):
        super().__init__(group)
        self.kept = kept

    def opened(self, path: Path) -> np.ndarray:
        return self.kept.used(path.name, mapped)

    def ahead(self, paths: Sequence[Path]) -> None:
        self.kept.ahead([path.name for path in paths])
