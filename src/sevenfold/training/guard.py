"""Guards a run: a step whose loss or gradient is not finite, or many times what is usual, is left out before the update.

    left out:  x not finite,  or  |x| >= spike * median(the last `window` that were taken)  and  |x| > the first such median

x is the mean loss of the step or the norm of its gradient. After `in_a_row` of them the run goes back to the last checkpoint
from before, and goes on with the data that come next: what step s reads is batch s + passed of the order, and `passed` is
in the checkpoint. A run that was stopped in between goes the same way, since one that is only saved because of a signal is
not gone back to. Finiteness is asked first, so that a NaN never
stands in a median. The second condition lets a loss that has fallen to nearly nothing move as it likes. Gradients that stay large
for `in_a_row` steps while the loss is as usual may be the data's doing, or that of a part that begins at zero and wakes up: the run
goes back to its last regular checkpoint once; where there is none, or they come again, they are usual from then on.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic import Field

from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, SevenfoldError

ENOUGH = 16
"""Steps that must have been taken before anything is usual."""
T = TypeVar("T")


class Diverged(SevenfoldError):
    """A run that does not get past steps that are not finite, or far from usual."""


class GuardConfig(part.Config):
    """What is done about steps that would harm the weights."""

    spike: float | None = Field(50.0, gt=1)
    """A loss or gradient norm this many times its running median is a spike, and its step is left out; null: none is."""
    window: int = Field(64, ge=16, le=10_000)
    """Steps of which the running median is."""
    in_a_row: int = Field(10, ge=1)
    """After so many steps left out in a row, go back to the last checkpoint before them."""
    returns: int = Field(3, ge=0)
    """Go back so many times; then give up."""


class Guard:
    """What a run remembers to judge its steps: the last losses and gradient norms, and how often it went back."""

    def __init__(self, config: GuardConfig):
        self.config = config
        self.in_a_row = self.returns = self.passed = self.good = self.steep = 0
        """Steps left out in a row now; times gone back; batches of the order that were passed over; the step to go back to; steps
        left out in a row for their gradient alone."""
        self.recent = {name: deque[float](maxlen=config.window) for name in ("loss", "gradient norm")}
        self.first: dict[str, float] = {}
        """The first median of each."""
        self.why = ""
        """Why the last step was left out."""

    @property
    def lost(self) -> bool:
        """Whether the run must go back."""
        return self.in_a_row >= self.config.in_a_row

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether a step may be taken; remembers it, or why not."""
        found = {"loss": abs(loss), "gradient norm": norm}
        self.why = "" if finite(loss, norm) else "the loss or a gradient is not finite"
        steep = False
        for name, value in found.items():
            if not self.why and self.config.spike is not None and len(self.recent[name]) >= ENOUGH:
                usual = statistics.median(self.recent[name])
                if value > self.first.setdefault(name, usual) and value >= self.config.spike * usual:
                    self.why = f"the {name} is {value:.3g}, usual is {usual:.3g}"
                    steep = name == "gradient norm"
        self.steep = self.steep + 1 if steep else 0
        # other data were tried, or there are none to try: so it is from now on
        if self.steep >= self.config.in_a_row and (self.returns or not self.good):
            self.recent["gradient norm"].clear()
            self.first.pop("gradient norm", None)
            self.why, self.steep = "", 0
        if not self.why:
            self.in_a_row = 0
            for name, value in found.items():
                if value:  # a batch without a target says nothing
                    self.recent[name].append(value)
        else:
            self.in_a_row += 1
        return not self.why

    def weigh(self, whole: bool) -> None:
        """Where a weight is not finite, the run is lost. `whole`: whether all are."""
        if not whole:
            self.why = "the weights are not finite"
            self.in_a_row = max(self.in_a_row, self.config.in_a_row)

    def go_back(self, step: int, restore: Callable[[int], int] | None) -> int:
        """Go back from `step`, and pass over the data since: `restore` takes over the checkpoint of the step it is given (or
        the last whole one before), this guard's state too, and returns its step. Diverged, one line, where that was done often enough, or
        there are no checkpoints (None)."""
        mend = "lower train.optimizer.lr, or look at the data"
        if restore is None or self.returns >= self.config.returns:
            done = "nothing was saved to go back to" if restore is None else f"went back {self.returns} times already"
            raise Diverged(f"after step {step} {self.why}: {mend} ({self.in_a_row} steps in a row; {done})")
        returns, passed = self.returns + 1, self.passed
        to = restore(self.good)
        self.returns, self.passed, self.in_a_row = returns, passed + step - to, 0
        return to

    def through(self, feed: Callable[[], Iterable[T]]) -> Iterator[T]:
        """What `feed` gives, which is begun anew whenever the run went back."""
        returns = -1
        while returns != self.returns:
            returns = self.returns
            for found in feed():
                yield found
                if self.returns != returns:
                    break

    def state(self) -> dict[str, Any]:
        """All of it as plain data."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return {
            **numbers,
            "recent": {name: list(found) for name, found in self.recent.items()},
            "first": dict(self.first),
        }

    def restore(self, state: Any, where: str) -> None:
        """Take over what `state` gave (nothing, for None); CheckpointError if it is not such a thing."""
        if state is None:
            return
        state = state if isinstance(state, dict) else {}
        numbers = {name: state.get(name) for name in NUMBERS}
        recent, first = state.get("recent"), state.get("first")
        if (
            any(type(value) is not int or value < 0 for value in numbers.values())
            or not (isinstance(recent, dict) and recent.keys() == self.recent.keys())
            or not all(isinstance(found, list) and all(map(_number, found)) for found in recent.values())
            or not (isinstance(first, dict) and first.keys() <= recent.keys() and all(map(_number, first.values())))
        ):
            raise CheckpointError(f"{where}: guard is not the state of one")
        for name, value in numbers.items():
            setattr(self, name, value)
        self.recent = {name: deque(found, maxlen=self.config.window) for name, found in recent.items()}
        self.first = dict(first)


NUMBERS = ("in_a_row", "returns", "passed", "good", "steep")


def _number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def finite(loss: float, norm: float) -> bool:
    """Whether both are finite."""
    return math.isfinite(loss) and math.isfinite(norm)
