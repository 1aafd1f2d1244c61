"""Classes by their names: a picture is of the class whose name, in many sentences, is nearest.

    w_c = mean_t f(t with c) / |…|,     p(c | x) = softmax_c( s g(x) . w_c / |w_c| )          g(x), f(t) of length 1

Radford 2021 (CLIP), arXiv:2103.00020 section 3.1.4: the mean over templates is taken of normalised text embeddings. For models of two
towers, one of which reads text. Nothing is trained: the folder holds the model and one vector a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.adaptation._features import scored, simple
from sevenfold.adaptation._folder import write_model
from sevenfold.adaptation._task import target_of
from sevenfold.adaptation._towers import Tower, towered, towers_of
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.assembly.model import Model
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.training.prepare import field_of
from sevenfold.training.start import begun_from

PHOTO = ("a photo of a {}",)


class ZeroShot(Method):
    class Config(Method.Config):
        templates: tuple[str, ...] | str = PHOTO
        """Sentences with {} for the name of a class; or a file with one a line."""
        names: dict[str, str] = {}
        """Label → how a sentence calls it, where that is not the label itself (0: zero)."""
        classes: tuple[str, ...] = ()
        """The labels; by default those of the training part of the data."""

    example = {"start": "infonce", "target": "label"}

    def run(self, asked: Asked) -> Found:
        start = begun_from(asked.run)
        model, source = start.model.eval(), asked.data.build()
        towers = towers_of(model)
        text = next((tower for tower in towers if model.config.streams[tower.stream].kind == "text"), None)
        if text is None:
            raise ConfigError(
                f"zero_shot: none of the towers of {asked.run} reads text: {', '.join(t.stream for t in towers)}"
            )
        other = next(tower for tower in towers if tower is not text)
        target, _ = target_of(source, asked.target, model.config)
        train, held_out = source.split()
        known = [_label(source, index, target) for index in train] if not self.config.classes else []
        classes = list(self.config.classes) or sorted({label for label in known if label is not None})
        if len(classes) < 2:
            raise DataError(f"zero_shot: {target!r} has {len(classes)} class: name two or more (classes)")
        weights = self.weights(model, text, classes)
        field = field_of(other.stream, model.config.streams[other.stream], source.fields)
        samples = [(source[index].get(field), _label(source, index, target)) for index in held_out]
        seen = [(raw, classes.index(label)) for raw, label in samples if raw is not None and label in classes]
        unseen = len(samples) - len(seen)
        if not seen:
            raise DataError(f"zero_shot: no held-out sample has one of the classes {', '.join(classes)}")
        scale = float(start.objective["scale"].exp()) if "scale" in start.objective else 1 / 0.07
        scores = softmax(scale * towered(model, other, [raw for raw, _ in seen]) @ weights.T)
        y = np.array([place for _, place in seen])
        figures = {"this model": scored("classes", scores, y), "chance": {"accuracy": 1 / len(classes)}}
        places = np.array([classes.index(label) for label in known if label in classes])
        figures |= simple("classes", places, y) if len(places) else {}
        write_model(model, asked.folder, {"classes": weights, "scale": np.array([scale])})
        more: dict[str, Any] = {
            "classes": classes,
            "stream": other.stream,
            "trunk": other.trunk,
            "head": other.head,
            "unseen": unseen,
        }
        return Found(figures, len(seen), more | {"target": target})

    def weights(self, model: Model, text: Tower, classes: list[str]) -> np.ndarray:
        """[classes d], each of length 1: the mean over templates of what the text tower makes of them."""
        found = []
        templates = self._templates()
        for label in classes:
            name = self.config.names.get(label, label)
            mean = towered(model, text, [template.replace("{}", name) for template in templates]).mean(0)
            found.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
        return np.stack(found)

    def _templates(self) -> list[str]:
        given = self.config.templates
        if isinstance(given, str):
            if not Path(given).is_file():
                raise ConfigError(
                    f"templates: there is no file {given!r}: give one, with a sentence a line, or the sentences"
                )
            given = tuple(line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines() if line.strip())
        wrong = next((template for template in given if "{}" not in template), None)
        if wrong is not None or not given:
            raise ConfigError(
                f"templates: {wrong!r} has no {{}} for the name of a class" if given else "templates: none are given"
            )
        return list(given)

    def lines(self, found: Found) -> list[str]:
        unseen = found.more["unseen"]
        left = f"; {unseen} held-out samples have none of these labels and are left out" if unseen else ""
        return [
            f"{len(found.more['classes'])} classes by {len(self._templates())} templates; nothing was trained{left}."
        ]


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def _label(source: Any, index: int, target: str) -> str | None:
    try:
        label = source[index].get(target)
    except BadSample:
        return None
    return None if label is None else str(label)
