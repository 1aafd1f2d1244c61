"""Rows that do not notice each other, greedy and by chance; what is drawn is what the model says in one pass; streams that
are read by cross-attention; more rows than are drawn at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from drawing import by_hand, speaker, translator
from sevenfold.assembly.generation import loop
from sevenfold.assembly.generation.choice import Choice, drawn, top_p, typical
from sevenfold.assembly.generation.rounds import numbers

PROMPTS = ["a", "Once upon a time", "é", "to be or not", ""]
MIXERS = ["attention", "min_gru", "conv", "hyena", "selective_ssm"]
CHANCE = [
    {"temperature": 0},
    {"seed": 5},
    {"seed": 5, "temperature": 1.4, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.3},
    {"beams": 3},
]


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("settings", CHANCE, ids=str)
def test_a_row_does_not_notice_the_others(mixer, settings):
    """Prompts of unequal length in one batch: a row is the same with other rows beside it, and the first as if alone."""
    model = speaker(mixer)
    together = model.draw(PROMPTS, length=12, **settings)
    others = ["zz", "something else and longer", "q", "", "1234567"]
    for row, prompt in enumerate(PROMPTS):
        for beside in ([*others[:row], prompt, *others[row + 1 :]], [*others[:row], prompt]):
            found = model.draw(beside, length=12, **settings)[row]
            assert (found.ids, found.raw, found.stopped) == together[row][:2][::-1] + (together[row].stopped,)
            np.testing.assert_allclose(found.logprobs, together[row].logprobs, atol=1e-9)
    assert len({tuple(one.ids) for one in together}) > 3


@pytest.mark.parametrize("mixer", MIXERS)
def test_several_samples(mixer):
    """Each prompt's samples differ; they are the same however many there are."""
    model = speaker(mixer)
    four = model.draw(PROMPTS[:3], count=4, length=10, seed=3)
    assert [one.ids for one in model.draw(PROMPTS[:3], count=2, length=10, seed=3)] == [
        four[place].ids for place in (0, 1, 4, 5, 8, 9)
    ]
    assert len({tuple(one.ids) for one in four}) == 12
    assert four == model.draw(PROMPTS[:3], count=4, length=10, seed=3)
    assert four != model.draw(PROMPTS[:3], count=4, length=10, seed=4)
    shorter = model.draw(PROMPTS[:3], count=4, length=5, seed=3)
    assert [one.ids for one in shorter] == [one.ids[:5] for one in four]


def test_more_rows_than_are_drawn_at_once(monkeypatch):
    model = speaker()
    settings = {"count": 3, "length": 6}
    wanted = [model.draw(PROMPTS, **settings), model.draw(PROMPTS, beams=3, **settings)]
    monkeypatch.setattr(loop, "TOGETHER", 4)
    for before, more in zip(wanted, ({}, {"beams": 3})):
        for one, other in zip(before, model.draw(PROMPTS, **settings, **more), strict=True):
            assert one.ids == other.ids
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-9)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"beams": 2}, {"lookup": 2}])
def test_logprobs_are_those_of_one_pass(mixer, settings):
    model = speaker(mixer)
    for prompt in PROMPTS:
        (found,) = model.draw(prompt, length=10, **settings)
        ids = [257, *prompt.encode(), *found.ids]
        wanted = by_hand(model, ids[:-1]).log_softmax(-1)[-len(found.ids) :]
        wanted = wanted.gather(1, torch.tensor(found.ids)[:, None])[:, 0]
        np.testing.assert_allclose(found.logprobs, wanted.numpy(), atol=1e-8)
        assert found.logprob == pytest.approx(sum(found.logprobs))
        assert found.stopped == ("end" if found.ids[-1] == 258 else "length")


def test_only_what_is_asked_for_is_computed(monkeypatch):
    """No log-probabilities for `generate`, one pass of the trunk a token, one over the prompt for all samples of it."""
    model, seen = speaker(), []
    step = model.trunks["lm"].step
    monkeypatch.setattr(
        model.trunks["lm"], "step", lambda hidden, *rest: seen.append(hidden.x.shape[:2]) or step(hidden, *rest)
    )
    monkeypatch.setattr("sevenfold.assembly.generation.rounds.logprobs_of", None)
    with torch.no_grad():
        model.heads["text"].projection.weight[258] = 0  # it hardly ends
    model.generate("abcd", count=3, length=5, seed=2)
    assert seen == [(1, 5)] + [(3, 1)] * 4


def test_a_trunk_that_reads_another():
    """A decoder given a source, one row each; greedy, by chance, by beams, guessing ahead; with guidance."""
    model = translator()
    sources = ["hello", "a longer source", "x"]
    for settings in ({"temperature": 0}, {"seed": 2}, {"beams": 3}):
        together = model.draw(["t", "", "uv"], given={"source": sources}, length=8, **settings)
        assert len({tuple(one.ids) for one in together}) == 3
        for row, (prompt, source) in enumerate(zip(["t", "", "uv"], sources)):
            beside, given = ["", "aa", "b"], ["p", "qq", "something else"]
            beside[row], given[row] = prompt, source
            assert model.draw(beside, given={"source": given}, length=8, **settings)[row].ids == together[row].ids
    greedy = model.generate("t", given={"source": "hello"}, length=8, temperature=0)
    assert model.generate("t", given={"source": "hello"}, length=8, temperature=0, lookup=2) == greedy
    assert model.generate("t", given={"source": "hello"}, length=8, temperature=0, draft=model) == greedy
    for settings in ({"temperature": 0, "count": 2}, {"beams": 2, "count": 2}, {"lookup": 1, "temperature": 0}):
        far = model.generate("t", given={"source": ["hello", "x"]}, guidance=3.0, length=8, **settings)
        near = model.generate("t", given={"source": ["hello", "x"]}, length=8, **settings)
        assert len(far) == len(near) and far != near


def test_the_decoder_says_what_forward_says():
    model = translator()
    (found,) = model.draw("t", given={"source": "hello"}, length=8, temperature=0)
    ids = [257, ord("t"), *found.ids]
    batch = model.tokenize([{"source": "hello", "target": bytes(ids[1:2]).decode()}])
    for place in range(2, len(ids)):
        batch["target"] = batch["target"]._replace(
            values=torch.tensor([ids[:place]]), coords=torch.arange(place)[None, :, None], valid=None
        )
        with torch.no_grad():
            logits = model.head("target", model(batch)["dec"].x[0, -1])
        logits[[256, 257, 259]] = float("-inf")
        assert int(logits.argmax()) == ids[place]


# Chance


def test_numbers_of_chance():
    """Of each row its own, and the first ones the same however many are taken."""
    assert torch.equal(numbers(1, 2, 3, 100)[:7], numbers(1, 2, 3, 7))
    rows = {float(numbers(seed, row, sample, 1)) for seed in range(3) for row in range(3) for sample in range(3)}
    assert len(rows) == 27


@pytest.mark.parametrize("seed", range(3))
def test_ids_come_as_often_as_they_should(seed):
    """By the inverse of the running sum; ids of no probability never come, whatever the number."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(40, generator=generator).softmax(-1)
    shares[[0, 7, 39]] = 0
    uniform = torch.rand(40_000, dtype=torch.float64, generator=generator)
    counts = torch.bincount(drawn(shares.expand(len(uniform), -1), uniform), minlength=40).double()
    assert counts[shares == 0].sum() == 0
    kept = shares > 0
    assert chisquare(counts[kept], (shares[kept].double() / shares[kept].double().sum()) * len(uniform)).pvalue > 1e-4
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert drawn(shares.expand(2, -1), edges).tolist() == [1, 38]


def test_what_was_drawn_before_is_drawn_by_one_number_a_token():
    """A whole sequence by hand: filters, then the running sum."""
    model, settings = speaker(), {"temperature": 0.8, "top_k": 30, "min_p": 0.01}
    (found,) = model.draw("ab", length=8, seed=9, **settings)
    ids, choice = [257, 97, 98], Choice(**settings)
    for number in numbers(9, 0, 0, 8)[: len(found.ids)]:
        logits = by_hand(model, ids)[-1:]
        logits[:, [256, 257, 259]] = float("-inf")
        sums = choice.narrowed(logits)[0].softmax(-1).cumsum(-1)
        ids.append(next(id for id, total in enumerate(sums.tolist()) if total > float(number) * float(sums[-1])))
    assert ids[3:] == found.ids


@pytest.mark.parametrize("probed", [1, 2, 5, 50])
def test_ordering_some_is_ordering_all(probed, monkeypatch):
    """Rows of which the first few tokens are enough, and rows of which they are not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 50, generator=generator) * torch.linspace(0.1, 8, 40)[:, None]
    wanted = [[name(rows, p) for name in (top_p, typical) for p in (0.3, 0.95)] for rows in (logits, logits[-1:])]
    monkeypatch.setattr("sevenfold.assembly.generation.choice.PROBED", probed)
    found = [[name(rows, p) for name in (top_p, typical) for p in (0.3, 0.95)] for rows in (logits, logits[-1:])]
    assert all(torch.equal(a, b) for one, other in zip(wanted, found) for a, b in zip(one, other))
