"""Filling in hidden tokens: against a brute-force loop, one pass, and what must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from drawing import built, filler
from sevenfold.assembly.generation import fill
from sevenfold.core.types import Stream
from tiny import any_to_any, made

PAD, BOS, EOS, MASK = 256, 257, 258, 259
ITEMS = ["The <mask>at <mask> on", "<mask><mask><mask>", "a<mask>", "<mask>é<mask><mask> b <mask>"]


def hidden(item: str) -> list[int]:
    ids: list[int] = []
    for place, piece in enumerate(item.split("<mask>")):
        ids += [MASK] * (place > 0) + list(piece.encode())
    return ids


def logits_of(model, ids: list[int]) -> torch.Tensor:
    """[n v] of one item alone, special ids left out."""
    places = torch.arange(len(ids))[None, :, None]
    with torch.no_grad():
        x = model.trunks["enc"]({"text": Stream(torch.tensor([ids]), places)}).of("text").x
        logits = model.head("text", x)[0]
    logits[:, [PAD, BOS, EOS, MASK]] = float("-inf")
    return logits


def by_hand(model, item: str, left_after: list[int]) -> tuple[list[int], list[float]]:
    """Greedy, by confidence: how many are hidden after each pass is given."""
    ids, logs = hidden(item), {}
    for left in left_after:
        logs_now = logits_of(model, ids).log_softmax(-1)
        open = [place for place, id in enumerate(ids) if id == MASK]
        surest = sorted(open, key=lambda place: -float(logs_now[place].max()))
        for place in surest[: len(open) - left]:
            logs[place] = float(logs_now[place].max())
            ids[place] = int(logs_now[place].argmax())
    return ids, [logs[place] for place in sorted(logs)]


def checked(model, item: str, found, wanted: list[int], logs: list[float]) -> None:
    places = [place for place, id in enumerate(hidden(item)) if id == MASK]
    assert found.ids == [wanted[place] for place in places]
    assert found.raw == model.modalities["text"].raw(np.array(wanted))
    np.testing.assert_allclose(found.logprobs, logs, atol=1e-6)


@pytest.mark.parametrize("mixer", ["attention", "conv"])
def test_one_a_step_is_brute_force(mixer):
    """As many steps as hidden tokens, of a straight schedule; items of unequal length in one batch and alone."""
    model = filler(block={"mixer": mixer})
    together = fill(model, ITEMS, steps=100, schedule="linear")
    for item, found in zip(ITEMS, together):
        count = item.count("<mask>")
        wanted, logs = by_hand(model, item, list(range(count - 1, -1, -1)))
        checked(model, item, found, wanted, logs)
        checked(model, item, fill(model, item, steps=count, schedule="linear")[0], wanted, logs)


def test_one_step_is_one_pass():
    model = filler()
    for item in ITEMS:
        logits = logits_of(model, hidden(item))
        wanted = [int(row.argmax()) if id == MASK else id for id, row in zip(hidden(item), logits)]
        logs = [float(row.log_softmax(-1).max()) for id, row in zip(hidden(item), logits) if id == MASK]
        checked(model, item, fill(model, item, steps=1)[0], wanted, logs)
        checked(model, item, fill(model, item, steps=1, order="random")[0], wanted, logs)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [2, 3, 5, 8, 12])
def test_schedules(schedule, steps):
    """How many are hidden after each step, by the formula, at least one filled in each time; no pass too many."""
    model, seen = filler(), []
    forward = model.trunks["enc"].forward
    model.trunks["enc"].forward = lambda batch, *rest: (
        seen.append(int((batch["text"].values == MASK).sum())) or forward(batch, *rest)
    )
    model.fill(length=10, steps=steps, schedule=schedule)
    left, wanted = 10, []
    for step in range(1, steps + 1):
        wanted.append(left)
        share = math.cos(math.pi / 2 * step / steps) if schedule == "cosine" else 1 - step / steps
        left = max(0, min(left - 1, math.floor(10 * share + 1e-9)))
        if not left:
            break
    assert seen == wanted and left == 0 and (len(seen) == steps or steps > 10)


SETTINGS = [
    {"steps": 3},
    {"steps": 3, "order": "random", "seed": 1},
    {"steps": 4, "temperature": 1.0, "seed": 2},
    {"steps": 4, "temperature": 1.5, "top_k": 20, "noise": 4.0, "seed": 3},
]


@pytest.mark.parametrize("how", SETTINGS, ids=str)
def test_what_is_given_stays_and_rows_do_not_notice_each_other(how):
    model = filler()
    found = model.fill(ITEMS, **how)
    raw = model.modalities["text"].raw
    model.modalities["text"].raw = lambda values, coords: values.tolist()
    together = model.fill(ITEMS, count=2, **how)
    for row, item in enumerate(ITEMS):
        ids = hidden(item)
        for filled in together[2 * row : 2 * row + 2]:
            assert len(filled) == len(ids)
            assert all(new == old if old != MASK else new < 256 for new, old in zip(filled, ids))
        beside = ["<mask>zz", "other <mask> words <mask>", "<mask>", "q<mask>q"]
        beside[row] = item
        assert model.fill(beside, **how)[row] == together[2 * row]
        assert model.fill(beside[: row + 1], **how)[row] == together[2 * row]
        assert raw(np.array(together[2 * row])) == found[row]
    assert together == model.fill(ITEMS, count=2, **how)
    chance = how.get("temperature") or "order" in how
    assert any(a != b for a, b in zip(together[::2], together[1::2])) == bool(chance)


def test_order_and_noise_matter():
    model = filler()
    item, how = "<mask>" * 12, {"steps": 6}
    surest = model.fill(item, **how)[0]
    assert {model.fill(item, order="random", seed=seed, **how)[0] for seed in range(4)} - {surest}
    assert {model.fill(item, noise=20.0, seed=seed, **how)[0] for seed in range(4)} - {surest}
    assert {model.fill(item, noise=0.0, seed=seed, **how)[0] for seed in range(4)} == {surest}
    assert len({model.fill(item, temperature=2.0, seed=seed, **how)[0] for seed in range(4)}) == 4


def test_ids_ends_and_lengths():
    model = filler({"ends": True})
    assert model.fill([97, MASK, 98])[0] == model.fill([[97, MASK, 98]])[0] == model.fill(np.array([97, MASK, 98]))[0]
    assert model.fill([np.array([97, MASK]), np.array([MASK, 98, 99])])[1].endswith("bc")
    inner = filler({"ends": True})
    inner.load_state_dict(model.state_dict())
    inner.modalities["text"].raw = lambda values, coords: values.tolist()
    one = inner.fill("a<mask>b")[0]
    assert one[0] == BOS and one[-1] == EOS and one[1] == 97 and one[3] == 98
    nothing = inner.fill(length=7, count=2, temperature=1.0)
    assert all(len(ids) == 9 and all(id < 256 for id in ids[1:-1]) for ids in nothing) and nothing[0] != nothing[1]


def test_a_picture_from_nothing_and_from_a_part():
    """Ids of a grid that is always the same, beside a caption that is given."""
    data = any_to_any()
    data["trunks"]["mind"]["mask"] = {"causal": False}
    data["objective"] = {"kind": "masked_token", "trunk": "mind", "stream": "image"}
    model = made(data).model
    tokenizer = model.modalities["image"].tokenizer
    first, second = model.fill(given={"caption": ["a five", "a three"]}, steps=4, temperature=1.0)
    assert first.shape == (8, 8, 1) and not np.array_equal(first, second)
    ids = tokenizer.encode(first).values
    ids[3:9] = tokenizer.specials["mask"]
    model.modalities["image"].raw = lambda values, coords: values
    again = model.fill(ids, given={"caption": "a five"}, steps=4)[0]
    assert np.array_equal(again[:3], ids[:3]) and np.array_equal(again[9:], ids[9:])
    assert not set(again.tolist()) & set(tokenizer.specials.values())
    with pytest.raises(Exception, match="has 16 tokens, not 2"):
        model.fill([0, tokenizer.specials["mask"]])


def test_a_trunk_that_reads_an_earlier_one():
    """Which is run once where it does not read what is filled in."""
    streams = {"source": {"kind": "text"}, "text": {"kind": "text", "ends": False}}
    trunks = {
        "far": {"inputs": ["source"], "width": 16, "depth": 1},
        "enc": {"inputs": ["text"], "cross_attends": "far", "width": 16, "depth": 1},
    }
    model = built(streams, trunks, {"text": {"trunk": "enc", "stream": "text"}}, std=1.0)
    runs = []
    forward = model.trunks["far"].forward
    model.trunks["far"].forward = lambda *given: runs.append(1) or forward(*given)
    one, other = (fill(model, "<mask>b<mask><mask>", given={"source": text}, steps=3)[0] for text in ("hello", "other"))
    assert len(runs) == 2 and abs(one.logprob - other.logprob) > 0.1


def test_words_between_hidden_ones():
    """Of a tokenizer with pieces: what stands between is encoded by itself."""
    texts = ["the cat sat on the mat", "the dog sat on the log"] * 3
    for kind in ("wordpiece", "bpe"):
        model = filler({"tokenizer": {"kind": kind, "size": 300}}, raws=texts)
        (text,) = model.fill("the <mask> sat on the <mask>", steps=2)
        assert text.startswith("the") and "sat on the" in text and "mask" not in text.lower()
