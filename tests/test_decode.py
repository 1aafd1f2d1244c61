"""Drawing: the choice of a token by the book, and rows that do not notice each other."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sevenfold.assembly.generation.choice import Choice
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Stream
from tiny import any_to_any, made


def choose(logits, temperature, top_k, top_p, generator):
    """logits [b v] → ids [b], with numbers of chance from a generator."""
    choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p)
    return choice.choose(logits, torch.rand(len(logits), dtype=torch.float64, generator=generator))


def allowed(logits, temperature, top_k, top_p):
    """Probabilities after narrowing, by the book: sort, keep k, keep the fewest that reach p, renormalise. Of equal
    logits, those kept may be any: the result is a list of (value, probability) in falling order."""
    ordered = sorted((value / temperature for value in logits), reverse=True)
    if top_k is not None:
        ordered = ordered[:top_k]
    weights = [math.exp(value - ordered[0]) for value in ordered]
    shares = [weight / sum(weights) for weight in weights]
    if top_p is not None and top_p < 1:
        count = next(k for k in range(1, len(shares) + 1) if sum(shares[:k]) >= top_p - 1e-9)
        shares = [share / sum(shares[:count]) for share in shares[:count]]
    return shares


LOGITS = [2.0, 1.0, 1.0, 1.0, 0.5, 0.0, -0.5]
RULES = [
    (1.0, None, None),
    (0.5, None, None),
    (2.0, 3, None),
    (1.0, 2, None),
    (1.0, None, 0.6),
    (1.0, 5, 0.8),
    (1.0, 1, None),
    (1.0, None, 1e-6),
    (1.0, 99, 1.0),
    (0.7, 4, 0.9),
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), RULES)
def test_choices_follow_the_rules(temperature, top_k, top_p):
    """Over 20,000 draws; among the three tokens that are equal, however many are kept, those share alike."""
    draws = 20_000
    generator = torch.Generator().manual_seed(0)
    ids = choose(torch.tensor([LOGITS]).expand(draws, -1), temperature, top_k, top_p, generator)
    counts = sorted(torch.bincount(ids, minlength=7).tolist(), reverse=True)
    expected = allowed(LOGITS, temperature, top_k, top_p)
    assert sum(count > 0 for count in counts) == len(expected)
    kept = sorted(set(ids.tolist()), key=lambda id: -LOGITS[id])
    by_logit = torch.bincount(ids, minlength=7)[kept].numpy()
    if len(expected) > 1:
        assert chisquare(by_logit, np.array(expected) * draws).pvalue > 1e-4


def test_ties_at_the_edge_keep_no_more_than_k():
    ids = choose(torch.zeros(4000, 6), 1.0, 2, None, torch.Generator().manual_seed(0))
    assert len(set(ids.tolist())) == 2
    every = choose(torch.zeros(4000, 6), 1.0, None, 0.5, torch.Generator().manual_seed(0))
    assert len(set(every.tolist())) == 3


@pytest.mark.parametrize("seed", range(5))
def test_narrowing_against_brute_force(seed):
    """Which tokens can come at all, for random logits with forbidden ones among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, generator=generator) * 2
    logits[seed] = float("-inf")
    for temperature, top_k, top_p in itertools.product((0.5, 1.5), (None, 1, 3, 8), (None, 0.3, 0.9)):
        ids = choose(logits.expand(3000, -1), temperature, top_k, top_p, generator)
        finite = [float(value) for value in logits if math.isfinite(value)]
        likely = allowed(finite, temperature, top_k, top_p)
        best = sorted(range(8), key=lambda id: -float(logits[id]))[: len(likely)]
        found = set(ids.tolist())
        assert found <= set(best)
        assert {best[k] for k, share in enumerate(likely) if share > 0.01} <= found


def test_extreme_temperatures():
    logits = torch.tensor([[1.0, 3.0, 2.0, float("-inf")]]).expand(500, -1)
    for temperature in (0, 1e-300, 1e-40, 1e-10, 1e-3):
        assert set(choose(logits, temperature, None, None, torch.Generator()).tolist()) == {1}
    assert set(choose(logits, 100, None, None, torch.Generator()).tolist()) == {0, 1, 2}
    assert choose(logits * 1e30, 1.0, None, None, torch.Generator())[0] == 1


# A model of captions and pictures


def drawing(mixer="attention", trunk=(), **more):
    data = any_to_any({"mixer": mixer}, **more)
    data["trunks"]["mind"].update(dict(trunk))
    torch.manual_seed(2)
    ready = made(data)
    with torch.no_grad():
        for parameter in ready.model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5)
    return ready


CAPTIONS = ["7", "the digit 3", "a small image of a 5", "number one"]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("mixer", ["attention", "min_gru", "conv"])
def test_rows_of_unequal_lengths_do_not_notice_each_other(mixer):
    model = drawing(mixer).model
    together = model.generate(stream="image", given={"caption": CAPTIONS}, temperature=0)
    alone = [model.generate(stream="image", given={"caption": [text]}, temperature=0)[0] for text in CAPTIONS]
    assert same(together, alone)
    prompts = model.generate(CAPTIONS, stream="caption", temperature=0, length=12)
    assert prompts == [model.generate(text, stream="caption", temperature=0, length=12)[0] for text in CAPTIONS]
    assert len({picture.tobytes() for picture in together}) > 1
    assert all(drawn.startswith(text) for drawn, text in zip(prompts, CAPTIONS))


@pytest.mark.parametrize("mixer", ["attention", "min_gru", "conv"])
@pytest.mark.parametrize("trunk", [{}, {"index": True, "position": "learned"}, {"class_token": False, "registers": 1}])
def test_what_is_drawn_is_what_forward_says(mixer, trunk):
    """Each token is the likeliest after those before it, in one pass over the whole sequence."""
    ready = drawing(mixer, trunk)
    model = ready.model
    modality, place = model.modalities["image"], model.trunks["mind"]
    never = [modality.tokenizer.specials[name] for name in ("pad", "bos", "mask", "eos")]
    for text in CAPTIONS:
        picture = model.generate(stream="image", given={"caption": [text]}, temperature=0)[0]
        batch = model.tokenize([{"caption": text, "image": picture}])
        with torch.no_grad():
            hidden = place(batch, order=["caption", "image"])
            start, stop = hidden.spans["image"]
            logits = model.head("image", hidden.x[0, start - 1 : stop - 1])
        logits[:, never] = float("-inf")
        drawn = batch["image"].values[0]
        best = logits.amax(1)
        assert (best - logits.gather(1, drawn[:, None])[:, 0]).abs().max() < 1e-4


def test_pictures_are_laid_out_as_they_are_read():
    """The coordinates that drawn tokens get are those of the tokenizer."""
    ready = drawing()
    trunk, seen = ready.model.trunks["mind"], []
    embed = trunk.embed
    trunk.embed = lambda name, given, *rest: (
        (seen.append(given.coords.clone()) if isinstance(given, Stream) and name == "image" else None)
        or embed(name, given, *rest)
    )
    picture = ready.model.generate(stream="image", temperature=0)[0]
    assert picture.shape == (8, 8, 1)
    grid = ready.model.tokenize([{"image": picture}])["image"].coords[0]
    assert torch.equal(torch.cat(seen, 1)[0], grid[:15])


def test_captions_from_pictures_and_pictures_from_captions():
    ready = drawing()
    sample = ready.samples(2)
    pictures = ready.model.generate(stream="image", given={"caption": [s["caption"] for s in sample]}, count=2, seed=1)
    assert [picture.shape for picture in pictures] == [(8, 8, 1)] * 4
    captions = ready.model.generate(stream="caption", given={"image": [s["image"] for s in sample]}, length=6, seed=1)
    assert len(captions) == 2 and all(isinstance(text, str) for text in captions)
    one = ready.model.generate(stream="caption", given={"image": sample[0]["image"]}, length=6, temperature=0)
    assert one == ready.model.generate(stream="caption", given={"image": [sample[0]["image"]]}, length=6, temperature=0)
    assert same(
        ready.model.generate(stream="image", given={"caption": "a three"}, temperature=0),
        ready.model.generate(stream="image", given={"caption": ["a three"]}, temperature=0),
    )


@pytest.mark.parametrize("mixer", ["attention", "min_gru", "conv"])
def test_guidance(mixer):
    """1 is none, 0 ignores what is given, between them lies what lies between."""
    model = drawing(mixer).model
    given = {"caption": CAPTIONS}
    for settings in ({"temperature": 0}, {"seed": 5}):
        with_given = model.generate(stream="image", given=given, **settings)
        without = model.generate([None] * 4, stream="image", **settings)
        assert same(model.generate(stream="image", given=given, guidance=1.0, **settings), with_given)
        assert same(model.generate(stream="image", given=given, guidance=0.0, **settings), without)
        assert same(model.generate(stream="image", given=given, guidance=1 + 1e-9, **settings), with_given)
        assert not same(with_given, without)
    far = model.generate(stream="image", given=given, guidance=8.0, temperature=0)
    assert not same(far, model.generate(stream="image", given=given, temperature=0))


def test_seeds_and_counts():
    model = drawing().model
    first = model.generate(stream="image", count=3, seed=4)
    assert same(first, model.generate(stream="image", count=3, seed=4))
    assert not same(first, model.generate(stream="image", count=3, seed=5))
    assert len({picture.tobytes() for picture in first}) == 3
    many = model.generate(["a", "b"], stream="caption", count=3, length=4)
    assert [text[0] for text in many] == ["a", "a", "a", "b", "b", "b"]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.train()
    model.generate(stream="image")
    assert torch.equal(before, torch.get_rng_state()) and model.training


def forced(ready, name, script):
    """A model whose head says, at each place, the token of a script (one list a row)."""
    size, step = ready.model.modalities[name].tokenizer.size, itertools.count()

    def head(which, x):
        place = next(step)
        logits = torch.zeros(len(x), size)
        for row, ids in enumerate(script):
            logits[row, ids[min(place, len(ids) - 1)]] = 50.0
        return logits

    ready.model.head = head
    return ready.model


def test_an_end_ends_a_row():
    ready = drawing()
    eos = ready.model.modalities["caption"].tokenizer.specials["eos"]
    model = forced(ready, "caption", [[104, 105, eos, 120], [97, eos, 120], [98, 99, 100, 101, eos]])
    assert model.generate([None] * 3, stream="caption", length=50, temperature=0) == ["hi", "a", "bcde"]
    model = forced(ready, "caption", [[104]])
    assert model.generate(stream="caption", length=5) == ["hhhhh"]


def test_special_tokens_are_never_drawn():
    ready = drawing()
    specials = ready.model.modalities["caption"].tokenizer.specials
    model = forced(ready, "caption", [[specials["mask"]], [specials["pad"]], [specials["bos"]]])
    for text in model.generate([None] * 3, stream="caption", length=9, seed=1):
        assert "mask" not in text
    ready = drawing()
    tokenizer = ready.model.modalities["image"].tokenizer
    ids = [row for special in tokenizer.specials.values() for row in [[special]]]
    assert len(forced(ready, "image", ids).generate([None] * len(ids), stream="image")) == len(ids)


def test_bounds():
    model = drawing().model
    for settings, told in (
        ({"length": 0}, "length"),
        ({"count": 0}, "count"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"guidance": float("inf")}, "guidance"),
        ({"given": {"caption": CAPTIONS[:2]}, "prompt": [None] * 3}, "2 items where 3 are needed"),
        ({"given": {"capton": CAPTIONS}}, "did you mean 'caption'"),
        ({"given": {"image": [None]}}, "does not read 'image'"),
        ({"prompt": np.zeros((8, 8, 1), np.uint8)}, "fixed size"),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            model.generate(**{"stream": "image", **settings})
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="say which"):
        model.generate()
    assert model.generate(stream="image", length=1000)[0].shape == (8, 8, 1)


def test_something_must_stand_in_front():
    data = any_to_any(orders=[["caption", "image"]])
    data["trunks"]["mind"]["class_token"] = False
    data["streams"]["caption"]["ends"] = False
    model = made(data).model
    for settings in ({"stream": "caption"}, {"stream": "caption", "prompt": ["a", ""]}, {"stream": "image"}):
        with pytest.raises(ConfigError, match="to draw .* from nothing"):
            model.generate(**settings)
    with pytest.raises(ConfigError, match="to draw .* from nothing"):
        model.generate(stream="image", given={"caption": ["a"]}, guidance=2.0)
    assert len(model.generate(stream="image", given={"caption": ["a"]})) == 1


def test_a_time_limit():
    model = drawing().model
    step = model.trunks["mind"].step

    def slow(*args):
        time.sleep(0.02)
        return step(*args)

    model.trunks["mind"].step = slow
    began = time.perf_counter()
    text = model.generate("ab", stream="caption", length=1000, seconds=0.1, temperature=0)[0]
    assert time.perf_counter() - began < 5
    assert text.startswith("ab") and len(text.encode()) < 500
    partly = model.generate(stream="image", seconds=0.0)[0]
    assert isinstance(partly, np.ndarray)
