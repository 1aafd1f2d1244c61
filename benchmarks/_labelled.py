"""Public sets with labels: what a model that was trained on them reaches, beside the simple method that each is known for.

Nothing is chosen on a test part: with `validate`, models learn from a part of the training samples and are measured on the rest of
them (other recordings of RadHAR, other speakers of the spoken digits, more mutations of GFP).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _sets
from sevenfold.core.types import Stream
from sevenfold.training.load import load_objective

Figures = dict[str, float]


def answers(run: Path, samples: Sequence[dict[str, Any]], batch: int = 128) -> list[np.ndarray]:
    """What the model of a run says of each sample: logits or numbers [outputs], or of each token [n outputs]."""
    objective: Any = load_objective(run).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    objective.to(device)
    found: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(samples), batch):
            some = [{k: v for k, v in one.items() if k in objective.inputs} for one in samples[start : start + batch]]
            tokens = {name: stream.to(device) for name, stream in objective.model.tokenize(some).items()}
            found += list(objective.guess(tokens).float().cpu().numpy())
    return found


def labels_of(run: Path, target: str) -> list[Any]:
    """The classes of a run, in the order of its outputs."""
    return list(load_objective(run).model.modalities[target].tokenizer.labels)


class Labelled:
    """A set: where its training data are (several trainings, if it leaves out one speaker after another), what is measured."""

    labelled = True
    title = ""
    columns: tuple[str, ...] = ("accuracy",)

    def __init__(self, data: Path, cache: Path, validate: bool):
        self.trainings: dict[str, Path] = {}
        self.samples: dict[str, list[dict[str, Any]]] = {}
        self.fill(data, cache, validate)

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        raise NotImplementedError

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        """The figures of the runs of one seed, by training."""
        raise NotImplementedError

    def baselines(self) -> dict[str, Figures]:
        raise NotImplementedError

    def accuracy(self, run: Path, samples: Sequence[dict[str, Any]], target: str = "label") -> float:
        known = labels_of(run, target)
        said = [known[int(row.argmax())] for row in answers(run, samples)]
        return float(np.mean([one == sample[target] for one, sample in zip(said, samples)]))


class Splice(Labelled):
    title = "UCI splice junctions: accuracy"

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.trainings[""], self.train, self.samples[""] = _sets.splice(data, cache, validate)

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        return {"accuracy": self.accuracy(runs[""], self.samples[""])}

    def baselines(self) -> dict[str, Figures]:
        from sklearn.linear_model import LogisticRegression

        x, x_new = (_letters([s["sequence"] for s in some], "ACGT") for some in (self.train, self.samples[""]))
        y, y_new = ([s["label"] for s in some] for some in (self.train, self.samples[""]))
        model = LogisticRegression(C=0.1, max_iter=2000).fit(x, y)
        common = max(set(y), key=y.count)
        return {
            "majority": {"accuracy": float(np.mean([one == common for one in y_new]))},
            "logistic regression, one-hot": {"accuracy": float(model.score(x_new, y_new))},
        }


def _letters(words: Sequence[str], alphabet: str) -> np.ndarray:
    """[n length*alphabet] of words of one length."""
    codes = np.frombuffer("".join(words).encode(), np.uint8).reshape(len(words), -1)
    return np.stack([codes == ord(letter) for letter in alphabet], -1).reshape(len(words), -1).astype(np.float32)


class Gfp(Labelled):
    title = "GFP, four mutations and more: Spearman"
    columns = ("spearman",)

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.trainings[""], self.train, self.samples[""] = _sets.gfp(data, cache, validate)

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        known = set(labels_of(runs[""], "mutations"))  # a mutation that was never seen says nothing
        asked = [
            {"mutations": ";".join(name for name in s["mutations"].split(";") if name in known)}
            for s in self.samples[""]
        ]
        return {"spearman": self.rank(np.array([float(row[0]) for row in answers(runs[""], asked, 2048)]))}

    def rank(self, said: np.ndarray) -> float:
        from scipy.stats import spearmanr

        return float(spearmanr(said, [s["fluorescence"] for s in self.samples[""]])[0])

    def baselines(self) -> dict[str, Figures]:
        from sklearn.linear_model import Ridge
        from sklearn.preprocessing import MultiLabelBinarizer

        sets = [
            [s["mutations"].split(";") if s["mutations"] else [] for s in some]
            for some in (self.train, self.samples[""])
        ]
        coder = MultiLabelBinarizer(sparse_output=True).fit(sets[0])
        model = Ridge(alpha=1.0).fit(coder.transform(sets[0]), [s["fluorescence"] for s in self.train])
        return {
            "fewer mutations": {"spearman": self.rank(-np.array([len(one) for one in sets[1]]))},
            "ridge, one-hot": {"spearman": self.rank(model.predict(coder.transform(sets[1])))},
        }


class SecondaryStructure(Labelled):
    title = "FLIP secondary structure, NEW364: Q3 over residues that are resolved"
    columns = ("Q3",)

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.trainings[""], self.train, self.samples[""] = _sets.secondary_structure(data, cache, validate)

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        known = labels_of(runs[""], "ss")
        right = total = 0
        for sample, logits in zip(self.samples[""], answers(runs[""], self.samples[""], 8)):
            for letter, row in zip(sample["ss"], logits):
                if letter != "-":
                    right, total = right + (known[int(row.argmax())] == letter), total + 1
            total += sum(letter != "-" for letter in sample["ss"][len(logits) :])  # cut off: wrong
        return {"Q3": right / total}

    def baselines(self) -> dict[str, Figures]:
        from sklearn.linear_model import LogisticRegression

        x, y = _windows(self.train[::24])
        x_new, y_new = _windows(self.samples[""])
        model = LogisticRegression(max_iter=200).fit(x, y)
        return {
            "majority": {"Q3": float(np.mean(y_new == max(set(y.tolist()), key=y.tolist().count)))},
            "window of 15, linear (on every 24th protein)": {"Q3": float(model.score(x_new, y_new))},
        }


def _windows(samples: Sequence[dict[str, Any]], around: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """One-hot residues about each residue whose label is known, and the labels."""
    x, y = [], []
    for sample in samples:
        one = _letters(list(sample["protein"]), "ACDEFGHIKLMNPQRSTVWY")
        wide = np.pad(one, ((around, around), (0, 0)))
        places = np.array([i for i, letter in enumerate(sample["ss"]) if letter != "-"], np.int64)
        x.append(wide[places[:, None] + np.arange(2 * around + 1)].reshape(len(places), -1))
        y.append(np.array(list(sample["ss"]))[places])
    return np.concatenate(x), np.concatenate(y)


class Radhar(Labelled):
    title = "RadHAR, 10 frames, positions only: accuracy over all windows of the test recordings"

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.trainings[""], self.train, self.samples[""] = _sets.radhar(data, cache, validate)

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        return {"accuracy": self.accuracy(runs[""], self.samples[""])}

    def baselines(self) -> dict[str, Figures]:
        from sklearn.ensemble import RandomForestClassifier

        x, x_new = ([_statistics(s["points"]) for s in some] for some in (self.train, self.samples[""]))
        y, y_new = ([s["label"] for s in some] for some in (self.train, self.samples[""]))
        model = RandomForestClassifier(300, random_state=0).fit(x, y)
        return {"random forest on statistics": {"accuracy": float(model.score(x_new, y_new))}}


def _statistics(points: np.ndarray) -> np.ndarray:
    """Mean, deviation, quantiles and extent of each coordinate, and how they go together."""
    quantiles = np.quantile(points, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), axis=0).ravel()
    return np.concatenate([[len(points)], points.mean(0), points.std(0), quantiles, np.cov(points.T).ravel()])


class SpokenDigits(Labelled):
    title = "Spoken digits, each speaker left out of training: accuracy"

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.speakers = _sets.spoken_digits(data, cache, validate)
        self.trainings = {name: folder for name, (folder, _, _) in self.speakers.items()}
        self.samples = {name: samples for name, (_, _, samples) in self.speakers.items()}
        self.columns = (*self.trainings, "accuracy")

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        found = {name: self.accuracy(run, self.samples[name]) for name, run in runs.items()}
        return {**found, "accuracy": float(np.mean(list(found.values())))}

    def baselines(self) -> dict[str, Figures]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        found = {}
        for name, (_, train, samples) in self.speakers.items():
            scale = StandardScaler()
            x = scale.fit_transform([_spectrogram(s["audio"]) for s in train])
            model = LogisticRegression(C=0.01, max_iter=500).fit(x, [s["label"] for s in train])
            x_new = scale.transform([_spectrogram(s["audio"]) for s in samples])
            found[name] = float(model.score(x_new, [s["label"] for s in samples]))
        return {"logistic regression on log spectrograms": {**found, "accuracy": float(np.mean(list(found.values())))}}


def _spectrogram(samples: np.ndarray, frames: int = 32) -> np.ndarray:
    """A log spectrogram stretched to 32 frames, flattened."""
    window = 256
    starts = np.linspace(0, max(len(samples) - window, 0), frames).astype(int)
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    cut = np.stack([padded[s : s + window] for s in starts]) * np.hanning(window)
    return np.log(np.abs(np.fft.rfft(cut))[:, :64] + 1e-3).ravel()


class Shakespeare(Labelled):
    title = "Tiny Shakespeare, the last tenth: nats per character, in windows of their own"
    columns = ("nats",)

    def fill(self, data: Path, cache: Path, validate: bool) -> None:
        self.trainings[""], self.text, self.asked = _sets.shakespeare(data, cache, validate)

    def of_runs(self, runs: Mapping[str, Path]) -> Figures:
        """Windows end to end, each begun without what was before: the first characters are guessed with little to go by, as in the
        published figure."""
        objective: Any = load_objective(runs[""]).eval()
        modality = objective.model.modalities["text"]
        ids = torch.from_numpy(modality.tokenizer.encode(self.asked).values)
        length = modality.config.length
        windows = ids[: len(ids) // length * length].reshape(-1, length)
        places, total, count = torch.arange(length)[None, :, None], 0.0, 0.0
        with torch.inference_mode():
            for some in windows.split(64):
                loss = objective({"text": Stream(some, places.expand(len(some), -1, -1))})
                total, count = total + float(loss.total), count + float(loss.count)
        return {"nats": total / count * len(ids) / len(self.asked)}

    def baselines(self) -> dict[str, Figures]:
        return {
            f"{n} letters and how often they go together": {"nats": n_gram(self.text, self.asked, n)} for n in (1, 5)
        }


def n_gram(train: str, asked: str, most: int) -> float:
    """Nats per character of an interpolated Witten-Bell model of `most` characters (Chen and Goodman 1999)."""
    counts: list[dict[str, dict[str, int]]] = [{} for _ in range(most)]
    for place, letter in enumerate(train):
        for order in range(min(most, place + 1)):
            after = counts[order].setdefault(train[place - order : place], {})
            after[letter] = after.get(letter, 0) + 1
    totals = [{before: sum(after.values()) for before, after in some.items()} for some in counts]
    found = 0.0
    for place, letter in enumerate(asked):
        p = 1 / 256
        for order in range(min(most, place + 1)):
            before = asked[place - order : place]
            if before in counts[order]:
                after, total = counts[order][before], totals[order][before]
                p = (after.get(letter, 0) + len(after) * p) / (total + len(after))
        found -= float(np.log(p))
    return found / len(asked)


SETS: dict[str, Any] = {
    "shakespeare": Shakespeare,
    "splice": Splice,
    "gfp": Gfp,
    "secondary_structure": SecondaryStructure,
    "radhar": Radhar,
    "spoken_digits": SpokenDigits,
}
