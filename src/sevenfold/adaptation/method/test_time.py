"""Adapting to the test input itself, by the objective that the model learned by; then answering with a head that stays as it is.

    for each batch x of the test:  theta <- theta_0;  k times: theta <- theta - eta grad L_self(x; theta);  y = head(f_theta(x))

Sun 2020 (test-time training), arXiv:1909.13231; with masked autoencoders, Gandelsman 2022, arXiv:2209.07522. The head is a probe
on the training part. After each batch all weights are what they were, bit for bit. It helps where the test differs from the
training data, and it may not: accuracy is told for every number of steps, on the test and on clean held-out data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from sevenfold.adaptation._features import batches, features, scored, simple, task_of, vectors
from sevenfold.adaptation._task import check_single, check_target, data_of, reduced, target_of, trunk_for, upstream
from sevenfold.adaptation.method import Asked, Found, Method
from sevenfold.adaptation.method.probe import into_head
from sevenfold.adaptation.readout import Task, probe
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Batch
from sevenfold.data.loader import Items, gather
from sevenfold.data.source import Sample
from sevenfold.data.view import View
from sevenfold.modality import check_views
from sevenfold.objective import Look, Objective
from sevenfold.training.optimizer import Optimizer
from sevenfold.training.prepare import Ready, items_of, prepare
from sevenfold.training.recipe import TrainConfig, read_recipe
from sevenfold.training.run import settled
from sevenfold.training.start import objective_of
from sevenfold.training.step import take_step
from sevenfold.training.wiring import wiring_of

PLAIN = -1
"""In place of a step: the model as it is, its norms too."""


class TestTime(Method):
    class Config(Method.Config):
        trunk: str | None = None
        """The trunk that is read and adapted; by default the one that reads the data."""
        pool: Literal["mean", "class", "last", "class_mean"] = "mean"
        """How its tokens become one vector. A class token is worth reading where the model learned by it (dinov2, a classifier)."""
        steps: int = Field(10, ge=0, le=10_000)
        """k: steps on each batch."""
        batch: int = Field(64, ge=1)
        """How many test samples are adapted to together; 1: each by itself."""
        copies: int = Field(1, ge=1)
        """How often each sample stands in a step, each time with another mask or look."""
        by_batch: bool = False
        """Norms over a batch take the statistics of the test batch, instead of those gathered in training (Nado 2020,
        arXiv:2006.10963). For networks with such norms, where a batch is many samples of one kind."""
        optimizer: Optimizer.Config = part.default("adamw")
        """What makes the steps; by default AdamW at 1e-5, without decay."""
        test: str | None = None
        """Other data to be tested on, with the same fields; by default the held-out part."""
        views: tuple[View.Config, ...] = ()
        """Changes to the test samples: a shift of the domain."""

    example = {"target": "label", "set": ("steps=2", "views=[{kind: shift}]")}

    def run(self, asked: Asked) -> Found:
        began = time.perf_counter()
        ready, trunk, target = self._prepared(asked)
        train = features(ready.model, items_for(ready, ready.source, ready.train_items.indices), target)
        task = task_of(ready.model, target)
        into_head(probe(train.x, train.y, task, seed=ready.recipe.seed), ready.model, target)
        settled(ready.recipe, ready, asked.folder, began)
        shown = sorted({0, 1, 2, 5, 10, 20, 50, 100, self.config.steps} & set(range(self.config.steps + 1)))
        shown = [PLAIN, *shown] if self.config.by_batch else shown
        way = TestTimeWay(ready.objective, trunk, target, self.config, ready.recipe.seed)
        told: dict[str, dict[str, dict[str, float]]] = {}
        tested = self._tested(asked, ready)
        for name, items in tested.items():
            scores: dict[int, list[np.ndarray]] = {step: [] for step in shown}
            wanted: list[np.ndarray] = []
            for start, (batch, _) in zip(range(0, len(items), self.config.batch), batches(items, self.config.batch)):
                if batch is None or target not in batch:
                    continue
                wanted.append(batch[target].values[:, 0].numpy())
                places = range(start, min(start + self.config.batch, len(items)))
                for step, found in way(batch, shown, self._looked(ready, items, places)).items():
                    scores[step].append(found)
            y = np.concatenate(wanted)
            answers = {step: np.concatenate(found) for step, found in scores.items()}
            told[name] = {
                "plain" if step == PLAIN else str(step): scored(task, found, y) for step, found in answers.items()
            }
        first = marks(task, answers[PLAIN if self.config.by_batch else 0], y)
        changes = np.sign(marks(task, answers[self.config.steps], y) - first)
        last, size = next(reversed(told.values())), len(next(reversed(tested.values())))
        after, before = str(self.config.steps), "plain" if self.config.by_batch else "0"
        figures = {"this model": last[after], "without adapting": last[before]}
        if len(told) > 1:
            figures |= {
                "clean: this model": told["held out"][after],
                "clean: without": told["held out"][before],
            }
        held = features(ready.model, tested["held out"], target)
        figures |= simple(task, train.y, held.y)
        counts = {"better": int((changes > 0).sum()), "worse": int((changes < 0).sum())}
        more = {"by_step": told, "trunk": trunk, "stream": target, "pool": self.config.pool, **counts}
        return Found(figures, size, more)

    def lines(self, found: Found) -> list[str]:
        lines = []
        for name, by_step in found.more["by_step"].items():
            term = "accuracy" if "accuracy" in by_step["0"] else next(iter(by_step["0"]))
            lines.append(
                f"{name}, {term} by steps: "
                + ", ".join(f"{step}: {terms[term]:.4f}" for step, terms in by_step.items())
            )
        better, worse = found.more["better"], found.more["worse"]
        lines.append(
            f"Adapting at test time {verdict(better, worse)}: {better} of {found.samples} answers got better, {worse} worse."
        )
        return lines

    def _prepared(self, asked: Asked) -> tuple[Ready, str, str]:
        """(the model with a head for the target and its own objective, trunk, target stream)."""
        own = objective_of(asked.run)
        if own["kind"] == "supervised":
            raise ConfigError(
                f"test_time: {asked.run} learned from labels, which a test does not have: it needs a run that learned without"
            )
        wiring, source = wiring_of(asked.run), asked.data.build()
        fields = source.fields
        target, kind = target_of(source, asked.target, wiring)
        check_target(source, target)
        trunk = trunk_for(wiring, fields, self.config.trunk)
        name = f"new_{target}" if target in wiring.streams else target
        streams, _ = reduced(wiring, trunk)
        head = HeadConfig(trunk=trunk, stream=name, pool=self.config.pool, projection={"kind": "linear", "bias": True})
        recipe = read_recipe(
            {
                "data": part.encode(asked.data), "start": asked.run, "streams": {**streams, name: {"kind": kind, "field": target}},
                "heads": {name: part.encode(head)}, "objective": own, "train": {"steps": 1},
            },
            asked.changes,
        )  # fmt: skip
        ready = prepare(recipe, note=asked.say)
        check_single(ready.model.modalities[name], target, "test_time")
        return ready, trunk, name

    def _tested(self, asked: Asked, ready: Ready) -> dict[str, Items]:
        """What is tested: clean held-out samples, and the test that was asked for."""
        found = {"held out": items_for(ready, ready.source, ready.held_out_items.indices)}
        if self.config.test is not None:
            source = data_of(self.config.test, asked.run).build()
            found["test"] = items_for(ready, source, range(len(source)))
        if self.config.views:
            base = found.get("test", found["held out"])
            changed: Any = Changed(base.source, ready, self.config.views)
            found["changed"] = items_for(ready, changed, base.indices)
        return found

    def _looked(self, ready: Ready, items: Items, places: range) -> Callable[[int], Batch] | None:
        """Step → what an objective that looks at items learns from, other looks each time. None for one that takes them as they
        are."""
        looks = ready.objective.looks()
        if not looks:
            return None
        looking = items_for(ready, items.source, items.indices, looks)
        many = self.config.copies

        def learned(step: int) -> Batch:
            batch = gather([looking[many * step + copy, place] for place in places for copy in range(many)])[0]
            assert batch is not None, "those that cannot be read are in no batch"
            return batch

        return learned


def marks(task: Task, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How good each answer is, [n]: right or not, how many labels are right, the negative squared error of numbers."""
    if task == "classes":
        return (scores.argmax(1) == y).astype(np.float64)
    if task == "labels":
        return ((scores > 0.5) == (y > 0.5)).sum(1).astype(np.float64)
    return -np.square(scores - y.reshape(len(y), -1)).sum(1)


def verdict(better: int, worse: int) -> str:
    """What may be said of so many changes: by the sign test, two-sided, at 5 %."""
    from scipy.stats import binomtest

    changed = better + worse
    if not changed or binomtest(better, changed).pvalue > 0.05:
        return "makes no difference here that is more than chance"
    return "helps here" if better > worse else "harms here"


def items_for(ready: Ready, source: Any, indices: Any, looks: Mapping[str, Look] | None = None) -> Items:
    """Samples as tokens of the model's streams, as they are or as an objective looks at them."""
    return items_of(ready.recipe, source, list(indices), ready.model.modalities, ready.fields, looks=looks)


class Changed:
    """A source whose samples are changed by views, each in a way of its own that is always the same."""

    def __init__(self, source: Any, ready: Ready, views: tuple[View.Config, ...]):
        streams = ready.recipe.streams
        read = {name for trunk in ready.recipe.trunks.values() for name in trunk.inputs if name in streams}
        self.source, self.seed, self.views = source, ready.recipe.seed, [view.build() for view in views]
        self.modalities = {ready.fields[name]: ready.model.modalities[name] for name in read}
        for modality in self.modalities.values():
            check_views(self.views, modality, "views")

    def __getitem__(self, index: int) -> Sample:
        sample = dict(self.source[index])
        for field, modality in self.modalities.items():
            if sample.get(field) is not None:
                draw = numpy_generator(self.seed, "changed", field, index)
                sample[field] = modality.changed(modality.check(sample[field]), self.views, draw)
        return sample

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


class TestTimeWay:
    """A model that adapts to each batch before it answers, and is reset after it."""

    def __init__(self, objective: Objective, trunk: str, target: str, config: Any, seed: int = 0):
        self.objective, self.trunk, self.target, self.config, self.seed = objective.eval(), trunk, target, config, seed
        own = tuple(f"model.trunks.{name}." for name in upstream(objective.model.config, trunk))
        for name, parameter in objective.named_parameters():
            parameter.requires_grad_(name.startswith(own))
        self.learning = {name: p for name, p in objective.named_parameters() if p.requires_grad}

    @property
    def model(self) -> Model:
        return self.objective.model

    def __call__(
        self, batch: Batch, shown: Any, learned: Callable[[int], Batch] | None = None
    ) -> dict[int, np.ndarray]:
        """Step → scores [b outputs], after each of the steps in `shown`, PLAIN: before anything. `learned`: what a step learns
        from, by default the batch itself, each sample `copies` times."""
        kept = {name: value.clone() for name, value in self.objective.state_dict().items()}
        inputs = {name: stream for name, stream in batch.items() if name != self.target}
        optimizer = self._optimizer()
        settings = TrainConfig(batch=1, precision="fp32")
        found = {}
        try:
            if PLAIN in shown:
                found[PLAIN] = self.scores(inputs)
            for module in self.objective.modules():
                if self.config.by_batch and getattr(module, "across", False):
                    module.train()
            for step in range(max(shown) + 1):
                if step in shown:
                    found[step] = self.scores(inputs)
                if step < max(shown):
                    given = self._copied(inputs) if learned is None else learned(step)
                    take_step(self.objective, optimizer, given, settings, "fp32", self.seed, step + 1, 1.0)
        finally:
            self.objective.eval().load_state_dict(kept)
            for parameter in self.learning.values():
                parameter.grad = None
        return found

    def _copied(self, inputs: Batch) -> Batch:
        return {
            name: stream.each(lambda t: t.repeat_interleave(self.config.copies, 0)) for name, stream in inputs.items()
        }

    def _optimizer(self) -> Any:
        config = self.config.optimizer
        if config == type(config)():
            config = config.replace(lr=1e-5, weight_decay=0.0)
        return config.build(self.learning, self.objective.cares())

    def scores(self, inputs: Mapping[str, Any]) -> np.ndarray:
        """[b outputs]: probabilities of classes, or numbers."""
        how = self.model.config.heads[self.target].pool
        x = torch.from_numpy(vectors(self.model, dict(inputs), self.trunk, how)).to(self.model.device)
        with torch.inference_mode():
            guess = self.model.head(self.target, x).double()
        task = task_of(self.model, self.target)
        done = guess.softmax(-1) if task == "classes" else guess.sigmoid() if task == "labels" else guess
        return done.cpu().numpy()
