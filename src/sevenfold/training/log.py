"""The log of a run: one JSON line a step in log.jsonl, TensorBoard events when that extra is installed, and a bar."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

from sevenfold.core.files import write_atomic

LOG = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log."""
    path, found = folder / LOG, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


class Log:
    """Appends records; on resume it first drops what came after the checkpoint."""

    def __init__(self, folder: Path | None, start: int = 0):
        self.records: list[dict[str, Any]] = []
        self.file, self.events = None, None
        if folder is None:
            return
        if start:
            self.records = [record for record in read_log(folder) if record["step"] <= start]
        write_atomic(folder / LOG, "".join(_line(record) for record in self.records))
        self.file = open(folder / LOG, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)

    def write(self, record: dict[str, Any], kind: str = "train") -> None:
        """One record with its `step`."""
        self.records.append(record)
        if self.file is not None:
            self.file.write(_line(record))
            self.file.flush()
        if self.events is not None:
            flat = {**record, **record.get("held_out", {})}
            prefix = "held_out" if "held_out" in record else kind
            for name, value in flat.items():
                if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                    self.events.add_scalar(f"{prefix}/{name}", value, record["step"])

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self.events is not None:
            self.events.close()


def _line(record: dict[str, Any]) -> str:
    clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in record.items()}
    return json.dumps(clean, ensure_ascii=False) + "\n"


class Bar:
    """A progress bar with loss, tokens/s and time left; nothing at all when the output is not a terminal."""

    def __init__(self, steps: int, start: int, show: bool | None = None):
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
            self.task = self.progress.add_task("train", total=steps, completed=start, told="")

    def step(self, record: dict[str, Any]) -> None:
        if self.progress is not None:
            told = f"loss {record['loss']:.4f} · {record['tokens_per_s']:,.0f} tokens/s"
            self.progress.update(self.task, advance=1, told=told)

    def say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.console.print(line, highlight=False, markup=False)
        else:
            print(line, flush=True)  # noqa: T201 (this is what says things)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
