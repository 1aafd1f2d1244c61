"""Are representations that were learned without labels worth it? Each beside simple baselines and its own random initialisation.

    python benchmarks/representations.py --data DATA mnist simclr --seeds 3
    python benchmarks/representations.py --data DATA mnist simclr --seeds 3 --full     and fine-tuned with all labels
    python benchmarks/representations.py --data DATA --table

DATA is a folder of public sets (see _sets.py). A row is (set, recipe): benchmarks/recipes/SET_NAME.yaml is trained once per seed, in
steps, not seconds; runs and figures are kept in --cache and not made twice. --validate measures on a part of the training data
instead of the test part: recipes are chosen with that. --table prints all figures that there are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold

import _labelled
import _sets
import sevenfold as sf
from _labelled import answers, labels_of
from sevenfold.adaptation.readout import knn, probe
from sevenfold.core.part import decode, find
from sevenfold.data.collate import collate
from sevenfold.data.source import Source
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe

HERE = Path(__file__).parent
Figures = dict[str, float]


def trained(recipe: Path, out: Path, data: Path, seed: int, overrides: Sequence[str] = ()) -> tuple[Any, float]:
    """(the model of a recipe on some data, seconds), trained now or before."""
    run = sf.train(
        str(recipe), out=out, overrides=[f"data.path={data}", f"seed={seed}", *overrides], resume=(out / "recipe.yaml").is_file(),
        say=lambda line: None, bar=False,
    )  # fmt: skip
    return sf.load(out), run.results["seconds"]


def untrained(recipe: Path, data: Path, seed: int, overrides: Sequence[str] = ()) -> Any:
    """The same model with its first weights."""
    return prepare(read_recipe(str(recipe), [f"data.path={data}", f"seed={seed}", *overrides])).model.eval()


def embedded(model: Any, stream: str, raws: Sequence[Any], pool: str, batch: int = 500) -> np.ndarray:
    """Raw items → [n width]."""
    tokens = model.modalities[stream].tokens
    found: list[np.ndarray] = []
    for start in range(0, len(raws), batch):
        found += model.embed_batch(collate([{stream: tokens(raw)} for raw in raws[start : start + batch]]), pool)
    return np.stack(found)


# MNIST


class Mnist:
    """60,000 pictures to learn from, 10,000 labels to read out with, 10,000 test pictures (or, to choose by, 10,000 others of
    the training part)."""

    title = "MNIST: probe on 10,000 labels / 100 labels (mean of 3 draws) / 20 nearest neighbours"
    columns = ("probe", "100 labels", "neighbours")

    def __init__(self, data: Path, cache: Path, validate: bool):
        self.paths = _sets.mnist(data, cache)
        with np.load(self.paths["train"]) as train, np.load(self.paths["test"]) as test:
            images, labels, shown, asked = train["image"], train["label"], test["image"], test["label"]
        order = np.random.default_rng(0).permutation(len(images))
        self.labelled_with, fit = self.paths["train"], order[:-10_000]
        if validate:
            self.labelled_with = cache / "mnist_fit.npz"
            _sets.save(self.labelled_with, image=images[fit], label=labels[fit])
        self.x, self.y = images[order[:10_000]], labels[order[:10_000]]
        self.x_test, self.y_test = (images[order[-10_000:]], labels[order[-10_000:]]) if validate else (shown, asked)

    def figures(self, x: np.ndarray, x_test: np.ndarray) -> Figures:
        """What representations of the labelled and the test pictures reach."""
        right = lambda readout: float((readout.predict(x_test) == self.y_test).mean())  # noqa: E731
        few = []
        for draw in range(3):
            places = np.random.default_rng(draw + 1).permutation(len(x))
            chosen = np.concatenate([places[self.y[places] == digit][:10] for digit in range(10)])
            few.append(right(probe(x[chosen], self.y[chosen])))
        return {
            "probe": right(probe(x, self.y)),
            "100 labels": float(np.mean(few)),
            "neighbours": right(knn(x, self.y)),
        }

    def of_model(self, model: Any, pool: str) -> Figures:
        return self.figures(
            *(embedded(model, "image", list(images[..., None]), pool) for images in (self.x, self.x_test))
        )

    def fine_tuned(self, run: Path, out: Path, seed: int) -> Figures:
        """The share of the asked pictures that are right, when a pretrained run has learned with all labels."""
        shutil.rmtree(out, ignore_errors=True)
        settings = [*FULL, f"seed={seed}"]
        sf.adapt(run, self.labelled_with, "full", target="label", out=out, settings=settings, say=lambda line: None)
        said, known = answers(out, [{"image": picture} for picture in self.x_test[..., None]]), labels_of(out, "label")
        right = [str(known[int(row.argmax())]) == str(y) for row, y in zip(said, self.y_test)]
        return {"probe": float(np.mean(right))}

    def baselines(self) -> dict[str, Figures]:
        flat = [images.reshape(len(images), -1) / 255 for images in (self.x, self.x_test)]
        return {"pixels": self.figures(*flat)}


FULL = (
    "train.steps=1500", "train.batch=128", "train.evaluate_batches=2", "train.optimizer.kind=muon", "train.optimizer.lr=2e-3",
    "streams.image.views=[{kind: affine, degrees: 10, scale: 0.1, slant: 0.1, pixels: 2}]",
)  # fmt: skip
"""Fine-tuning with all labels of MNIST."""

MNIST_POOLS = {
    "mae": ("mean", "quarters"),
    "dinov2": ("mean", "quarters"),
    "ibot": ("mean", "quarters"),
    "ijepa": ("mean", "quarters"),
    "byol": ("mean", "quarters"),
}


# Cells


class Pbmc:
    """4,271 cells, all of them seen without their types by what learns representations and by PCA. Three stratified folds. To
    choose by: the same in the two thirds that the first fold trains on, so that nothing is chosen on its last third."""

    title = (
        "PBMC 4k, 8 types: logistic regression on three folds / on 10 labels a type (mean of 6 draws) / on the first fold, of whose "
        "test third no label was chosen by. All features under one global scaling. The types were made by clustering principal "
        "components, which favours PCA"
    )
    columns = ("three folds", "10 a type", "first fold")

    def __init__(self, data: Path, cache: Path, validate: bool):
        self.paths = _sets.pbmc(data, cache)
        source = decode(Source.Config, {"kind": "h5ad", "path": str(self.paths["train"])}).build()
        samples = [source[place] for place in range(len(source))]
        self.cells, self.y = [sample["cells"] for sample in samples], np.array([sample["type"] for sample in samples])
        every = np.arange(len(self.y))
        self.folds = folds(self.y, every, 0)
        self.among = self.folds[0][0] if validate else every
        if validate:
            self.folds = folds(self.y, self.among, 1)

    def figures(self, x: np.ndarray) -> Figures:
        """What representations of all cells reach."""

        def right(fit: np.ndarray, test: np.ndarray) -> float:
            readout = probe(x[fit], self.y[fit], scaling="one")
            return float((readout.predict(x[test]) == self.y[test]).mean())

        few = []
        for draw in range(6):
            places = np.random.default_rng(draw).permutation(self.among)
            chosen = np.concatenate([places[self.y[places] == name][:10] for name in np.unique(self.y)])
            few.append(right(chosen, np.setdiff1d(self.among, chosen)))
        by_fold = [right(*fold) for fold in self.folds]
        return {"three folds": float(np.mean(by_fold)), "10 a type": float(np.mean(few)), "first fold": by_fold[0]}

    def of_model(self, model: Any, pool: str) -> Figures:
        return self.figures(embedded(model, "cells", self.cells, pool))

    def baselines(self) -> dict[str, Figures]:
        found = {}
        for scaled in (False, True):
            tokenizer = find("tokenization", "expression").Config(scaled=scaled).build()
            tokenizer.fit(self.cells)
            x = np.concatenate([tokenizer.encode(cell).values for cell in self.cells])
            for count in (20, 50):
                name = f"PCA {count} of {'scaled' if scaled else 'log'} expression"
                found[name] = self.figures(PCA(count, random_state=0).fit_transform(x))
        return found


def folds(y: np.ndarray, among: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three stratified folds of some places: (to fit on, to test on)."""
    split = StratifiedKFold(3, shuffle=True, random_state=seed).split(among, y[among])
    return [(among[fit], among[test]) for fit, test in split]


SETS: dict[str, Callable[[Path, Path, bool], Any]] = {"mnist": Mnist, "pbmc": Pbmc, **_labelled.SETS}


def pools(name: str) -> tuple[str, ...]:
    return MNIST_POOLS.get(name, ("mean",))


# Rows


def row(args: argparse.Namespace, name: str, of: str) -> None:
    """Train and measure one recipe with each seed; what there is already is not made again."""
    recipe, cache = HERE / "recipes" / f"{of}_{name}.yaml", args.cache
    task = SETS[of](args.data, cache, args.validate)
    kind = "validation" if args.validate else "test"
    record(cache, kind, of, "baselines", 0, lambda: task.baselines())
    for seed in range(args.first, args.first + args.seeds):
        out = cache / f"{of}_{name}_{seed}"

        def measured(seed: int = seed, out: Path = out) -> dict[str, Figures]:
            began = time.perf_counter()
            if getattr(task, "labelled", False):
                return supervised(task, recipe, out, seed, args)
            model, seconds = trained(recipe, out, task.paths["train"], seed, args.set)
            if args.full:
                return {
                    "fine-tuned with all labels": task.fine_tuned(out, out.with_name(f"{out.name}_full_{kind}"), seed)
                }
            found = {pool: task.of_model(model, pool) for pool in pools(name)}
            first = untrained(recipe, task.paths["train"], seed, args.set)
            found |= {f"{pool}, random initialisation": task.of_model(first, pool) for pool in pools(name)}
            print(f"{of} {name} seed {seed}: trained in {seconds:.0f} s, all in {time.perf_counter() - began:.0f} s")
            return found

        found = record(cache, kind, of, f"{name}_full" if args.full else name, seed, measured)
        for pool, figures in found.items():
            print(f"  {pool}: " + " / ".join(f"{figures[column]:.4f}" for column in task.columns if column in figures))


def supervised(task: Any, recipe: Path, out: Path, seed: int, args: argparse.Namespace) -> dict[str, Figures]:
    """A set with labels: every training of it with one seed, and the figures."""
    runs, spent = {}, 0.0
    for name, data in task.trainings.items():
        runs[name] = out.with_name(f"{out.name}{'_validate' * args.validate}{name and '_' + name}")
        spent += trained(recipe, runs[name], data, seed, args.set)[1]
    print(f"{recipe.stem} seed {seed}: trained in {spent:.0f} s")
    return {"trained on its labels": task.of_runs(runs)}


def record(
    cache: Path, kind: str, of: str, name: str, seed: int, make: Callable[[], dict[str, Figures]]
) -> dict[str, Figures]:
    """The figures of one seed, kept in a file."""
    path = cache / "figures" / kind / f"{of}_{name}_{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def table(cache: Path, kind: str) -> None:
    """All figures that there are: mean over seeds ± standard deviation, and how many seeds."""
    for of, task in SETS.items():
        rows: dict[str, dict[str, list[Figures]]] = {}
        for path in sorted((cache / "figures" / kind).glob(f"{of}_*.json")):
            name = path.stem.removeprefix(f"{of}_").rpartition("_")[0]
            for way, figures in json.loads(path.read_text()).items():
                rows.setdefault(name, {}).setdefault(way, []).append(figures)
        if not rows:
            continue
        columns = getattr(task, "columns", ())
        print(
            f"\n{getattr(task, 'title', of)} ({kind})\n\n| | "
            + " | ".join(columns)
            + " | seeds |\n|---|"
            + "---|" * (len(columns) + 1)
        )
        for name, ways in rows.items():
            for way, several in ways.items():
                cells = [spread([figures[column] for figures in several if column in figures]) for column in columns]
                print(f"| {name}: {way} | " + " | ".join(cells) + f" | {len(several)} |")


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("of", nargs="?", choices=list(SETS), metavar="SET")
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes/SET_NAME.yaml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/representations"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="an override of the recipe")
    parser.add_argument("--full", action="store_true", help="fine-tune all weights with all labels (mnist)")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in args.names:
        row(args, name, args.of)
    if args.table:
        table(args.cache, "validation" if args.validate else "test")


if __name__ == "__main__":
    main()
