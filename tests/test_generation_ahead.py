"""Guessing ahead: token for token the greedy text, and by chance exactly the large model's distribution, held against
that computed for all short sequences."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from drawing import by_hand, speaker, translator
from sevenfold.assembly.generation import Settings
from sevenfold.assembly.generation.going import Going
from sevenfold.assembly.generation.request import asked
from sevenfold.assembly.generation.speculative import Lookup
from sevenfold.core.part import decode

MIXERS = ["attention", "min_gru", "conv", "selective_ssm"]
PROMPTS = ["a", "abcabcabc", ""]


@pytest.mark.parametrize(("mixer", "small"), itertools.product(MIXERS, ["attention", "min_gru"]))
@pytest.mark.parametrize("ahead", [1, 5])
def test_greedy_is_the_same(mixer, small, ahead):
    """With a draft of another kind, with itself, by look-up; mixers that rewind and mixers that cannot; penalties too."""
    model, draft = speaker(mixer), speaker(small, seed=1)
    for prompt, penalty in itertools.product(PROMPTS, (1.0, 1.5)):
        how = {"temperature": 0, "length": 14, "repetition_penalty": penalty}
        (wanted,) = model.draw(prompt, **how)
        for guess in ({"draft": draft}, {"draft": model}, {"lookup": 1}, {"lookup": 3}):
            (found,) = model.draw(prompt, ahead=ahead, **guess, **how)
            assert (found.ids, found.raw, found.stopped) == (wanted.ids, wanted.raw, wanted.stopped)
            np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-9)
            if guess.get("draft") is model and len(found.ids) > 2:
                assert found.accepted == 1.0


def test_how_much_is_accepted():
    """All of what the model would say itself; a share of what a like one says; less of what another says."""
    model, how = speaker("attention"), {"length": 40, "seed": 3}
    near = speaker("attention")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    shares = [
        np.mean([model.draw(prompt, draft=draft, **how)[0].accepted for prompt in PROMPTS])
        for draft in (model, near, speaker("attention", seed=7))
    ]
    assert shares[0] == 1.0 > shares[1] > 0.5 > shares[2] >= 0
    assert model.draw("a", **how)[0].accepted is None
    assert model.draw("a", length=1, draft=near)[0].accepted is None
    steps = []
    step = model.trunks["lm"].step
    model.trunks["lm"].step = lambda hidden, *rest: steps.append(hidden.x.shape[1]) or step(hidden, *rest)
    (found,) = model.draw("abc", draft=near, ahead=4, **how)
    assert len(steps) < len(found.ids) - 5 and max(steps[1:]) <= 5


# Chance

TEXT = {"tokenizer": {"kind": "characters"}, "ends": True}
LETTERS = ["ab", "c", "ba"]
HOW = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 3},
    {"temperature": 2.0, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.1, "repetition_penalty": 1.8},
]
DRAWS = 1000


def exact(model, how, length):
    """Every sequence of at most `length` new ids (shorter only where it ends) → its probability."""
    tokenizer, choice = model.modalities["text"].tokenizer, Settings(**how)
    specials = tokenizer.specials
    begin = [specials["bos"], *tokenizer.encode("ab").values.tolist()]
    never = [id for name, id in specials.items() if name != "eos"]
    found, open = {}, {(): 1.0}
    for _ in range(length):
        after = {}
        for ids, share in open.items():
            logits = by_hand(model, [*begin, *ids])[-1:]
            seen = torch.zeros_like(logits, dtype=torch.bool)
            seen[:, [*begin, *ids]] = True
            penalty = choice.repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
            logits[:, never] = float("-inf")
            for id, p in enumerate(choice.probabilities(logits)[0].tolist()):
                if p > 0:
                    (found if id == specials["eos"] else after)[(*ids, id)] = share * p
        open = after
    return found | open


@pytest.mark.parametrize(
    ("guess", "how"),
    [*(("draft", how) for how in HOW), ("lookup", HOW[0]), ("lookup", HOW[3]), ("plain", HOW[2]), ("plain", HOW[3])],
    ids=str,
)
def test_the_distribution_is_the_large_models(how, guess):
    """Counts of all sequences of three tokens against their probabilities; a draft with quite another distribution."""
    model = speaker("attention", TEXT, LETTERS, std=0.3, depth=1, seed=2)
    wanted = exact(model, how, 3)
    assert sum(wanted.values()) == pytest.approx(1)
    by = {
        "draft": {"draft": speaker("min_gru", TEXT, LETTERS, seed=5, std=0.5, depth=1), "ahead": 2},
        "lookup": {"lookup": 2},
        "plain": {},
    }
    drawn = model.draw("ab", count=DRAWS, length=3, seed=11, logprobs=False, **by[guess], **how)
    counts = Counter(tuple(one.ids) for one in drawn)
    assert counts.keys() <= wanted.keys()
    common = [ids for ids, share in wanted.items() if share * DRAWS >= 8]
    seen = [counts[ids] for ids in common]
    expected = [wanted[ids] * DRAWS for ids in common]
    if len(common) < len(wanted):
        seen, expected = [*seen, DRAWS - sum(seen)], [*expected, DRAWS - sum(expected)]
    assert len(seen) > 10 and chisquare(seen, np.array(expected) * sum(seen) / sum(expected)).pvalue > 1e-3
    if guess == "draft":
        shares = [one.accepted for one in drawn if one.accepted is not None]
        assert 0.02 < np.mean(shares) < 0.98


def test_the_test_of_distributions_can_fail():
    """The same count against the draft's own distribution."""
    model, draft = (
        speaker("attention", TEXT, LETTERS, std=0.3, depth=1, seed=2),
        speaker("min_gru", TEXT, LETTERS, seed=5, std=0.5, depth=1),
    )
    wanted = exact(draft, HOW[0], 2)
    counts = Counter(tuple(one.ids) for one in model.draw("ab", count=400, length=2, draft=draft, logprobs=False))
    common = [ids for ids, share in wanted.items() if share * 400 >= 8]
    seen, expected = [counts[ids] for ids in common], np.array([wanted[ids] for ids in common])
    assert chisquare(seen, expected * sum(seen) / expected.sum()).pvalue < 1e-6


# Taking back


@pytest.mark.parametrize(
    "how", [{"mask": {"causal": True, "window": 6}}, {"cache": "sliding", "mask": {"causal": True, "window": 6}}]
)
def test_rings_that_fill(how):
    """A window's keys are kept in a ring, which rewinds until it is full, and not from then on."""
    settings = {"cache": how["cache"]} if "cache" in how else {}
    model, draft = speaker(mask=how["mask"]), speaker(seed=1, mask=how["mask"])
    for length in (3, 8, 30):
        want = {"temperature": 0, "length": length, "repetition_penalty": 1.4, **settings}
        for prompt in ("", "a", "abcdefghij"):
            wanted = model.draw(prompt, **want)[0]
            for guess in ({"draft": draft}, {"lookup": 2}, {"draft": speaker("min_gru", seed=2), "ahead": 7}):
                found = model.draw(prompt, **guess, **want)[0]
                assert found.ids == wanted.ids
                np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-9)


@pytest.mark.parametrize("mixer", [*MIXERS, "hyena", "gated_delta"])
def test_tokens_are_taken_back(mixer):
    """As if they had not been fed, again and again, over several feeds; against a state that never saw them."""
    draw = np.random.default_rng(0)
    how = decode(Settings, {"length": 60})
    model = speaker(mixer)
    one, other = (Going(asked(model, "abc", None, None, how), how) for _ in range(2))
    with torch.inference_mode():
        for _ in range(8):
            fed = []
            for fresh in (True, False, False):
                new = draw.integers(256, size=draw.integers(1, 4)).tolist()
                one.feed_ahead(torch.tensor([new]), fresh=fresh)
                fed += new
            count = int(draw.integers(0, len(fed) + 1))
            one.take_back(count)
            kept = fed[: len(fed) - count]
            if kept:
                other.feed_all(torch.tensor([kept]))
            assert one.fed == other.fed
            probe = torch.tensor([[7]])
            torch.testing.assert_close(one.feed_ahead(probe), other.feed_all(probe), atol=1e-9, rtol=0)


# Looking up


def test_lookup_by_hand():
    """The longest match of at most `words` tokens, the latest of those; what followed it."""

    def brute(every, words, most):
        for size in range(min(words, len(every)), 0, -1):
            for place in range(len(every) - 1, size - 1, -1):
                if every[place - size : place] == every[-size:]:
                    return every[place : place + most]
        return []

    draw = np.random.default_rng(0)
    for _ in range(200):
        before = draw.integers(3, size=draw.integers(0, 9)).tolist()
        words, lookup, ids = int(draw.integers(1, 5)), None, []
        lookup = Lookup(before, words)
        for _ in range(6):
            ids += draw.integers(3, size=draw.integers(1, 4)).tolist()
            most = int(draw.integers(0, 5))
            assert lookup.guess(ids, most).ids == brute(before + ids, words, most)


def test_what_is_given_reaches_the_draft():
    model, draft = translator(), translator(seed=0)
    (found,) = model.draw("t", given={"source": "hello"}, draft=draft, length=12, seed=1)
    assert found.accepted == 1.0
    (other,) = model.draw("t", given={"source": "hello"}, draft=translator(seed=4), length=12, seed=1)
    assert other.accepted < 1
    guided = {"given": {"source": "hello"}, "guidance": 2.5, "length": 12, "temperature": 0}
    assert model.generate("t", draft=draft, **guided) == model.generate("t", **guided)


def test_a_draft_whose_positions_end_sooner():
    """Beyond them it guesses nothing, and the text is as it would be."""
    model, draft = speaker(), speaker(seed=1, position={"kind": "learned", "size": 10})
    how = {"length": 25, "temperature": 0, "repetition_penalty": 1.4}
    assert model.generate("abc", draft=draft, **how) == model.generate("abc", **how)


def test_several_rows_go_one_by_one():
    model, draft = speaker(), speaker(seed=1)
    together = model.draw(PROMPTS, draft=draft, count=2, length=8, seed=2)
    assert [one.ids for one in together[:2]] == [
        one.ids for one in model.draw(PROMPTS[0], draft=draft, count=2, length=8, seed=2)
    ]
    assert len({tuple(one.ids) for one in together}) == 6
    assert together == model.draw(PROMPTS, draft=draft, count=2, length=8, seed=2)
