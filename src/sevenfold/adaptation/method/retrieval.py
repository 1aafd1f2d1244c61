"""Finding the partner of an item among many: pictures for captions, one text for another.

    recall@k = share of queries with a partner among the k nearest by cosine

As measured by Karpathy and Fei-Fei 2015, arXiv:1412.2306 section 4.2, and since. A model of two towers compares what its heads
give; one that reads a single stream compares the means of its tokens over two fields. Items that are equal are each
other's partners too (ten pictures of one caption). Nothing is trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.adaptation._folder import write_model
from sevenfold.adaptation._task import trunk_for
from sevenfold.adaptation._towers import Tower, towered, towers_of
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.assembly.model import Model
from sevenfold.assembly.prompt import reads
from sevenfold.core.errors import BadSample, ConfigError, DataError, did_you_mean
from sevenfold.data.source import content_key
from sevenfold.training.load import load
from sevenfold.training.prepare import field_of


class Retrieval(Method):
    class Config(Method.Config):
        fields: tuple[str, str] | None = None
        """The two fields that belong together; by default those of the two towers."""
        k: tuple[int, ...] = Field((1, 5, 10), min_length=1)
        """How many nearest are looked at."""
        most: int = Field(2000, ge=2)
        """At most so many held-out pairs are compared."""

    answers = False
    example = {"start": "infonce"}

    def run(self, asked: Asked) -> Found:
        model, source = load(asked.run), asked.data.build()
        towers, names = self._sides(model, source.fields)
        pairs: list[tuple[Any, ...]] = []
        for index in source.split()[1]:
            try:
                sample = source[index]
            except BadSample:
                continue
            if all(sample.get(name) is not None for name in names) and len(pairs) < self.config.most:
                pairs.append(tuple(sample[name] for name in names))
        if len(pairs) < 2:
            raise DataError(
                f"retrieval: {len(pairs)} held-out samples have both {names[0]!r} and {names[1]!r}: two or more are needed"
            )
        sides = [towered(model, tower, [pair[place] for pair in pairs]) for place, tower in enumerate(towers)]
        keys = [[content_key({"raw": pair[place]}) for pair in pairs] for place in (0, 1)]
        match = np.array([[a == b for b in keys[0]] for a in keys[0]]) | np.array(
            [[a == b for b in keys[1]] for a in keys[1]]
        )
        cosine = sides[0] @ sides[1].T
        figures, chance = {}, {}
        for name, score, right in (
            (f"{names[0]} to {names[1]}", cosine, match),
            (f"{names[1]} to {names[0]}", cosine.T, match.T),
        ):
            for k in self.config.k:
                figures[f"{name}, recall@{k}"] = recall(score, right, k)
                chance[f"{name}, recall@{k}"] = by_chance(right, k)
        write_model(model, asked.folder, {})
        return Found({"this model": figures, "chance": chance}, len(pairs), {"fields": list(names)})

    def _sides(self, model: Model, fields: dict[str, str]) -> tuple[tuple[Tower, Tower], tuple[str, str]]:
        """(what embeds each side, its field)."""
        given = self.config.fields
        for name in given or ():
            if name not in fields:
                raise ConfigError(f"fields: the data has no field {name!r}{did_you_mean(name, fields)}")
        try:
            towers = towers_of(model)
        except ConfigError:
            if given is None:
                raise ConfigError(
                    "fields: name the two fields whose items belong together: --set fields=[a,b]"
                ) from None
            trunk = trunk_for(model.config, {given[0]: fields[given[0]]}, None)
            tower = Tower(trunk, reads(model, trunk)[0], None)
            return (tower, tower), given
        if given is None:
            config: Any = model.config.streams
            first, second = (field_of(tower.stream, config[tower.stream], fields) for tower in towers)
            return towers, (first, second)
        kinds = {model.config.streams[tower.stream].kind: tower for tower in towers}
        if any(fields[name] not in kinds for name in given):
            raise ConfigError(
                f"fields: the towers read {', '.join(t.stream for t in towers)}, and not {given[0]!r} and {given[1]!r}"
            )
        return (kinds[fields[given[0]]], kinds[fields[given[1]]]), given


def recall(score: np.ndarray, match: np.ndarray, k: int) -> float:
    """The share of rows with a match among the k columns of the highest score."""
    near = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(match, near, 1).any(1).mean())


def by_chance(match: np.ndarray, k: int) -> float:
    """What drawing k columns without looking gives: 1 - C(n - m, k) / C(n, k), m the matches of a row."""
    n, k = match.shape[1], min(k, match.shape[1])
    missed = [np.prod([(n - m - i) / (n - i) for i in range(k)]) if n - m >= k else 0.0 for m in match.sum(1)]
    return float(1 - np.mean(missed))
