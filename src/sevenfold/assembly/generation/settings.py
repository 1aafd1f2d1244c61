"""The settings of drawing token by token, and of filling in hidden tokens: frozen records, checked before anything is
computed. They are the fields of `model.generate`, `model.stream` and `model.fill`, and the flags of `sevenfold generate`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sevenfold.assembly.generation.choice import Choice


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Settings(Choice):
    """How items are drawn."""

    count: int = Field(1, ge=1, le=1 << 20)
    """Items per prompt or per given item; with beams, the best ones."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """Above 1, tokens that stand in the prompt or were drawn become less likely; below 1, more."""
    beams: int = Field(1, ge=1, le=1024)
    """Sequences followed at once, to find the likeliest one: beam search; 1: tokens are drawn."""
    length_penalty: float = Field(1.0, ge=-100, le=100)
    """Beams are compared by log-probability over length to this power: above 0 favours long ones."""
    length: int | None = Field(None, ge=1)
    """Most new tokens; by default what the stream's items have, as far as positions reach."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_several)] = ()
    """Strings that end an item; it is cut before the first of them."""
    seed: int = 0
    """The same seed draws the same items; a row does not depend on the others."""
    seconds: float | None = Field(None, ge=0)
    """Stop after this time, with what there is."""
    guidance: float = Field(1.0, gt=-100, lt=100)
    """How strongly to follow `given`; 1 is no guidance (above 1 needs a model trained with given streams dropped)."""
    cache: str | None = None
    """The kind of cache that attention keeps keys and values in; by default the full one."""
    lookup: int | None = Field(None, ge=1, le=64)
    """Guess ahead what followed when the last this many tokens (or fewer) stood there before; the distribution stays."""
    ahead: int = Field(4, ge=1, le=256)
    """Most tokens guessed ahead at a time, by `lookup` or by a small model."""

    @property
    def sampling(self) -> list[str]:
        """The settings of chance that were given."""
        narrow = [name for name in ("top_k", "top_p", "min_p", "typical") if getattr(self, name) is not None]
        warm = "temperature" in self.model_fields_set and self.temperature > 0
        return [*(["temperature"] if warm else []), *narrow]

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.beams > 1:
            if self.sampling:
                raise ValueError(
                    f"beams: search leaves nothing to chance: leave out {', '.join(self.sampling)}, or beams"
                )
            if self.stop:
                raise ValueError("beams: stop strings are for drawing: leave out stop, or beams")
            if self.lookup is not None:
                raise ValueError("beams: guessing ahead is for drawing: leave out lookup, or beams")
            if self.count > self.beams:
                raise ValueError(f"count: {self.beams} beams give at most {self.beams} items, not {self.count}")
        elif "length_penalty" in self.model_fields_set:
            raise ValueError("length_penalty: compares beams: give beams too")
        return self


class Unmasking(Choice):
    """How hidden tokens are filled in."""

    steps: int = Field(12, ge=1, le=1 << 20)
    """Passes of the model; each fills in some of the hidden tokens, at least one."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How many stay hidden after each step: few are filled in at first (cosine), or as many in each (linear)."""
    order: Literal["confidence", "random"] = "confidence"
    """Which are filled in first: those that the model is surest of, or any."""
    noise: float = Field(0.0, ge=0, le=1000)
    """Chance in the order by confidence: Gumbel noise of this size on log-probabilities, falling to 0 over the steps."""
    temperature: float = Field(0.0, ge=0, le=100)
    """Above 0 draws tokens; 0 takes the likeliest."""
    count: int = Field(1, ge=1, le=1 << 20)
    """Items per given item."""
    seed: int = 0
    """The same seed fills in the same; a row does not depend on the others."""
