"""The log of a run: one JSON line a step in log.jsonl, TensorBoard events when that extra is installed, and a bar."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import write_atomic

LOG = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log."""
    path, found = folder / LOG, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and type(record.get("step")) is int:
                found.append(record)
    return found


class Log:
    """Appends records; on resume it first drops what came after the checkpoint.

    Raises CheckpointError when the disk is full.
    """

    def __init__(self, folder: Path | None, start: int = 0):
        self.records: list[dict[str, Any]] = []
        self.file: TextIO | None = None
        self.events: Any = None
        self.path = None if folder is None else folder / LOG
        if folder is None:
            return
        if start:
            self.records = read_log(folder)
        self.back(start)

    def back(self, start: int) -> None:
        """Go on after step `start`: what came later is dropped."""
        self.records = [r for r in self.records if r["step"] <= start and not r.get("final")]
        if self.path is None:
            return
        self.close()
        with self._told():
            write_atomic(self.path, "".join(_line(record) for record in self.records))
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
            if importlib.util.find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self.events = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=start + 1)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written ({error}): make room, then resume") from None

    def write(self, record: dict[str, Any], kind: str = "train") -> None:
        """One record with its `step`."""
        self.records.append(record)
        with self._told():
            if self.file is not None:
                self.file.write(_line(record))
                self.file.flush()
            if self.events is not None:
                flat = {**record, **record.get("held_out", {})}
                prefix = "held_out" if "held_out" in record else kind
                for name, value in flat.items():
                    if name not in ("step", "final") and isinstance(value, int | float) and math.isfinite(value):
                        self.events.add_scalar(f"{prefix}/{name}", value, record["step"])

    def close(self) -> None:
        with self._told():
            if self.file is not None:
                self.file.close()
            if self.events is not None:
                self.events.close()


def _short(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_plain(record), ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """With null for what JSON has no number for (NaN, infinity)."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Bar:
    """A progress bar with loss, watched terms, tokens/s and time left; nothing at all when the output is not a terminal."""

    def __init__(self, steps: int, show: bool | None = None, watched: Sequence[str] = ()):
        self.watched = watched
        self.progress: Any = None
        if show if show is not None else sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(),
            )
            self.progress = Progress(*columns, console=Console(stderr=True))
            self.progress.start()
            self.task = self.progress.add_task("train", total=steps, told="")

    def begin(self, start: int) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=start)

    def step(self, record: dict[str, Any]) -> None:
        if self.progress is not None:
            loss = f"loss {record['loss']:.4f} · " if "loss" in record else ""
            loss += "".join(f"{name} {_short(record[name])} · " for name in self.watched if name in record)
            speed = f"{record['tokens_per_s']:,.0f} tokens/s" if "tokens_per_s" in record else ""
            self.progress.update(self.task, advance=1, told=loss + speed)

    def say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.console.print(line, highlight=False, markup=False)
        else:
            print(line, flush=True)  # noqa: T201 (this is what says things)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


class Silent(Bar):
    """Of a process that is not the first: that one says it."""

    def __init__(self) -> None:
        super().__init__(0, False)

    def say(self, line: str) -> None:
        pass
