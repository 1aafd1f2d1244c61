"""Bad samples are counted with file and line, too many stop a run; rows and batches without a modality are borne."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from numbered import Numbers, items, samples
from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.types import Tokens
from sevenfold.data.bad import BadSamples
from sevenfold.data.collate import collate
from sevenfold.data.loader import Order, Samples, load
from sevenfold.data.source.digits import Digits
from sevenfold.training.fit import fit
from sevenfold.training.look import evaluate
from tiny import any_to_any, made, recipe, text_file

# Bad samples


def test_a_bad_sample_survives_the_way_from_a_loader_process():
    for workers in (0, 1, 2):
        batches = list(load(items(Numbers(400, broken=(3, 77, 150, 399))), Order(400, 8, 0, 0, 50), workers))
        good = samples(batches)
        keys = [index for keys in Order(400, 8, 0, 0, 50) for _, index in keys]
        assert good == [index for index in keys if index not in (3, 77, 150, 399)]
        told = {(error.where, error.why) for _, broken, _ in batches for error in broken}
        assert told == {(f"numbers.txt:line {n}", "is broken") for n in (4, 78, 151, 400)}
        assert sum(seen for _, _, seen in batches) == 400


def with_labels(tmp_path, lines):
    """A recipe that reads a label from a text; each line is a sample."""
    path = tmp_path / "some.csv"
    path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return {
        "data": {"kind": "csv", "path": str(path), "held_out": 0.2},
        "streams": {"text": {"kind": "text"}, "label": {"kind": "number"}},
        "trunks": {"enc": {"inputs": ["text"], "width": 16, "depth": 1}},
        "objective": {"kind": "supervised"},
        "train": {"steps": 60, "batch": 8, "precision": "fp32"},
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_one_in_a_hundred_is_counted_exactly(tmp_path, workers):
    lines = [f"word{k} of {k},{'broken' if k % 125 == 60 else k}\n" for k in range(400)]
    data = with_labels(tmp_path, lines)
    ready = made({**data, "train": {**data["train"], "workers": workers, "batch": 16}})
    fitted = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bad=ready.bad, bar=False)
    assert len(ready.bad) == 3
    found = sorted(ready.bad.listed)
    assert [str(tmp_path / "some.csv") in where for where, _ in found] == [True] * 3
    assert sorted(where.rpartition(" ")[2].split(":")[-1] for where, _ in found) == ["187", "312", "62"]
    assert sum("loss" in record for record in fitted.log) == 60


@pytest.mark.parametrize("count", [20, 400])
def test_too_many_stop_the_run(tmp_path, count, monkeypatch):
    monkeypatch.setattr("sevenfold.training.prepare.look_through", lambda *args: None)
    ready = made(with_labels(tmp_path, [f"word{k},{'x' if k % 10 == 5 else k}\n" for k in range(count)]))
    with pytest.raises(DataError, match=r"\d+ of \d+ samples cannot be read, more than data.bad_share \(0.01\) allows"):
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bad=ready.bad, bar=False)


def test_windows_are_judged_once_by_samples_and_not_by_windows(tmp_path):
    """1 line of 200 is bad; there are few windows, of which it would be too large a share."""
    data = recipe("next_token", tmp_path, steps=12)
    (tmp_path / "some.jsonl").write_text("".join('{"text": "some words"}\n' if k != 77 else "{}\n" for k in range(200)))
    ready = made({**data, "data": {"kind": "jsonl", "path": str(tmp_path / "some.jsonl")}})
    assert len(ready.bad) == 1
    assert len(ready.train) < 100
    fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bad=ready.bad, bar=False)


def test_a_ledger():
    bad = BadSamples(0.01, 400, listed=2)
    for where in ("a", "b", "a", "c", "d"):
        bad.note(BadSample(where, "why"))
    assert len(bad) == 4 and bad.listed == [("a", "why"), ("b", "why")]
    bad.check(99)
    bad.check(400)
    with pytest.raises(DataError, match="4 of 399"):
        bad.check(399)
    bad.judged = True
    bad.check(399)


# Missing modalities


def test_rows_without_a_modality_go_through_a_model():
    """A row that lacks a stream gives what it gives alone, and one stream may be missing from a whole batch."""
    ready = made(any_to_any())
    source = Digits.Config().build()
    raws = [{"caption": source[k]["caption"], "image": source[k]["image"]} for k in range(4)]
    raws[1]["caption"] = raws[2]["image"] = None
    batch = ready.model.tokenize(raws)
    assert batch["caption"].valid[1].sum() == 0 and batch["image"].valid[2].sum() == 0
    with torch.no_grad():
        together = ready.model.embed(raws)
        for raw, vector in zip(raws, together):
            np.testing.assert_allclose(ready.model.embed([raw])[0], vector, atol=1e-5)
        loss = ready.objective(batch, {"order": torch.tensor([0, 0, 0, 0])})
    counts = [
        len(ready.model.tokenize([{name: raw[name]}])[name].values[0])
        for raw in raws
        for name in raw
        if raw[name] is not None
    ]
    assert float(loss.count) == sum(counts)
    assert collate([{"a": Tokens(np.zeros(2, np.int64), np.zeros((2, 1)))}, {}])["a"].valid.tolist() == [
        [True] * 2,
        [False] * 2,
    ]


@pytest.mark.parametrize("objective", ["mae", "infonce", "supervised"])
def test_batches_without_what_an_objective_needs_are_no_targets(objective, tmp_path):
    """All images are missing from a batch: nothing is learned from it, and nothing breaks."""
    ready = made(recipe(objective, tmp_path))
    source = Digits.Config().build()

    class Half(Samples):
        """The images of every second batch are gone."""

        def __len__(self):
            return len(ready.train)

        def __getitem__(self, key):
            item = dict(ready.train[key])
            if key[1] % 2:
                item.pop("image")
            return item or BadSample(source.where(key[1]), "nothing")

    settings = ready.recipe.train.replace(batch=1, steps=12)
    fitted = fit(ready.objective, Half(), ready.held_out, settings, bar=False)
    learned = ["loss" in record for record in fitted.log if "held_out" not in record]
    assert len(learned) == 12 and 0 < sum(learned) < 12
    assert evaluate(ready.objective, ready.held_out, settings)["loss"] >= 0


def test_short_text_gives_one_window(tmp_path):
    text_file(tmp_path, 200)
    data = recipe("next_token", tmp_path)
    (tmp_path / "words.txt").write_text("one two three four five six seven\n" * 3)
    data["streams"]["text"]["length"] = 500
    ready = made(data)
    assert len(ready.train) == len(ready.held_out) == 1
    fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
