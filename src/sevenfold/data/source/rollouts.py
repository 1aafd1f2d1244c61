"""Episodes of acting: an .npz with the steps of all episodes end to end, or a .jsonl with a step a line.

    acts [N] or [N A]   indices [episodes - 1]: where episodes end (those inside)   obs [N + episodes …] or [N …]   rews [N]

Discrete or continuous actions, and what was seen: obs has a last one more for each episode, or not. Names may also be
actions, observations, rewards. The files of the `imitation` library (arXiv:2211.11972); D4RL's are alike.

Or a .jsonl with a step a line (`{"episode": 0, "action": …, "reward": 0}`), where an action is a number, a word, or a list
with an entry for each column or agent; words, and lists within lists, are numbered in the order of their JSON text.
Overcooked's human plays (arXiv:1910.05789).
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._files import LARGEST, expands_to, read_bytes

LINES = (".jsonl", ".ndjson")
NAMES = {
    "actions": ("acts", "actions"),
    "observations": ("obs", "observations"),
    "rewards": ("rews", "rewards"),
    "ends": ("indices",),
}


class Rollouts(Source):
    """Samples are episodes, {"actions": [T A], "observations": float32 [T or T + 1, C], "return": the sum of rewards};
    joined, {"actions": [T C + A], "return"}."""

    class Config(Source.Config):
        length: int | None = Field(None, ge=1)
        """Episodes are cut into pieces of at most this many steps; by default whole."""
        join: bool = False
        """Whether an action stands behind what was seen before it, one row [observation, action] a step: a model of both."""
        action: str = "action"
        """The key of a .jsonl step's action."""
        episode: str = "episode"
        """The key that tells a .jsonl step's episode."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The arrays together may not be larger than this; they are held in memory."""

    def __init__(self, config: Any):
        super().__init__(config)
        found = self._read_lines() if suffix(self.path) in LINES else self._read()
        steps = len(found["actions"])
        ends = found.get("ends", np.zeros(0, np.int64))
        if ends.ndim != 1 or ends.dtype.kind not in "iu" and len(ends):
            raise DataError(f"{self.path}: indices is not a list of whole numbers")
        borders = np.unique(np.concatenate([[0], ends.astype(np.int64), [steps]]))
        if len(ends) and not (ends.min() > 0 and ends.max() <= steps and (np.diff(ends) > 0).all()):
            raise DataError(f"{self.path}: indices does not rise between 0 and the number of steps, {steps:,}")
        episodes = len(borders) - 1
        seen, self._extra = found.get("observations"), 0
        if seen is not None and len(seen) not in (steps, steps + episodes):
            raise DataError(f"{self.path}: {len(seen):,} observations for {steps:,} steps in {episodes:,} episodes")
        if seen is not None:
            self._extra = int(len(seen) == steps + episodes and len(seen) != steps)
        if config.join and seen is None:
            raise DataError(f"{self.path}: has no observations for join; set join: false")
        self._arrays = found
        self._pieces = [
            (episode, start, min(start + (config.length or steps), int(stop)))
            for episode, (begin, stop) in enumerate(zip(borders, borders[1:]))
            for start in range(int(begin), int(stop), config.length or steps)
        ][: config.limit]
        kinds = {"actions": "actions", "observations": "series", "rewards": "number"}
        self._fields = {("return" if name == "rewards" else name): kinds[name] for name in kinds if name in found}
        if config.join:
            del self._fields["observations"]

    def _read_lines(self) -> dict[str, np.ndarray]:
        """A step a line: actions [N A], rewards [N] if all have one, and where episodes end."""
        action, episode = self.config.action, self.config.episode
        acts: list[list[Any]] = []
        ends: list[int] = []
        rewards: list[Any] = []
        last: Any = None
        for number, line in enumerate(read_bytes(self.path, self.config.largest_bytes).splitlines(), 1):
            if not line.strip():
                continue
            try:
                step = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self.path}:{number}: is not JSON: {str(error).splitlines()[0]}") from None
            if not isinstance(step, dict) or action not in step or step[action] in (None, []):
                known = ", ".join(step) if isinstance(step, dict) else "none"
                raise DataError(f"{self.path}:{number}: has no {action!r}; there are {known}: set action to one")
            if acts and step.get(episode) != last:
                ends.append(len(acts))
            last = step.get(episode)
            acts.append(step[action] if isinstance(step[action], list) else [step[action]])
            rewards.append(step.get("reward"))
        if len(widths := {len(one) for one in acts}) > 1:
            raise DataError(
                f"{self.path}: the actions have {' and '.join(map(str, sorted(widths)))} entries: give one kind"
            )
        words = sorted({json.dumps(one) for row in acts for one in row if not _is_number(one)})
        if words:
            places = {
                word: place for place, word in enumerate(sorted({json.dumps(one) for row in acts for one in row}))
            }
            acts = [[places[json.dumps(one)] for one in row] for row in acts]
            self._notes = [
                f"{self.path}: actions are numbered: {', '.join(f'{n} {w}' for w, n in places.items())[:200]}"
            ]
        found = {"actions": np.array(acts, np.float64), "ends": np.array(ends, np.int64)}
        return found | ({"rewards": np.array(rewards, np.float64)} if all(map(_is_number, rewards)) else {})

    def _read(self) -> dict[str, np.ndarray]:
        path = self.path
        try:
            most = expands_to(path.stat().st_size, self.config.largest_bytes)
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > most:
                raise DataError(f"{path}: holds {size:,} bytes, and {most:,} are allowed: raise largest_bytes")
            with np.load(path, allow_pickle=False) as file:
                chosen = {name: next((one for one in known if one in file), None) for name, known in NAMES.items()}
                found = {name: file[one] for name, one in chosen.items() if one is not None}
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path}: is not a whole .npz file: {why}") from None
        if "actions" not in found or not found["actions"].size or found["actions"].dtype.kind not in "iufb":
            raise DataError(f"{path}: has no array of actions; it needs one named {' or '.join(NAMES['actions'])}")
        if found["actions"].ndim > 2:
            raise DataError(f"{path}: the actions are {list(found['actions'].shape)}, not [steps] or [steps numbers]")
        if "rewards" in found and found["rewards"].shape != found["actions"].shape[:1]:
            raise DataError(f"{path}: the rewards are not one a step")
        return found

    @classmethod
    def example(cls, folder: Path) -> Any:
        draw = numpy_generator("rollouts")
        lengths = draw.integers(4, 12, 12)
        total = int(lengths.sum())
        np.savez(
            folder / "walks.npz",
            acts=draw.integers(0, 3, total),
            obs=draw.normal(size=(total + 12, 2)).astype(np.float32),
            rews=np.ones(total),
            indices=lengths.cumsum()[:-1],
        )
        return cls.Config(path=str(folder / "walks.npz"))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if not path.is_file() or suffix(path) != ".npz" or not zipfile.is_zipfile(path):
            return 0.0
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()[:100]}
        return 0.8 if all(names & set(NAMES[name]) for name in ("actions", "observations")) else 0.0

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> Sample:
        episode, start, stop = self._pieces[index]
        acts = self._arrays["actions"][start:stop]
        sample: Sample = {"actions": np.array(acts[:, None] if acts.ndim == 1 else acts, np.float64)}
        if "observations" in self._arrays:
            shift = episode * self._extra
            seen = self._arrays["observations"][start + shift : stop + shift + self._extra]
            seen = np.array(seen.reshape(len(seen), -1), np.float32)
            if self.config.join:
                sample["actions"] = np.concatenate([seen[: stop - start], sample["actions"]], axis=1)
            else:
                sample["observations"] = seen
        if "rewards" in self._arrays:
            sample["return"] = float(self._arrays["rewards"][start:stop].sum())
        return sample

    def where(self, index: int) -> str:
        episode, start, stop = self._pieces[index]
        return f"{self.config.path}: episode {episode}, steps {start} to {stop}"


def _is_number(one: Any) -> bool:
    return isinstance(one, int | float) and not isinstance(one, bool)
