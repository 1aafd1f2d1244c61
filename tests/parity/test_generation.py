"""Drawing against transformers: every filter and their order, penalties, beams, log-probabilities."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as theirs
from twins import family_of, files, stirred

from sevenfold.assembly.generation.choice import Choice, min_p, penalised, top_k, top_p, typical
from sevenfold.assembly.model import Model
from sevenfold.core.part import find

LOGITS = [
    torch.randn(9, 50, generator=torch.Generator().manual_seed(0)),
    torch.randn(9, 50, generator=torch.Generator().manual_seed(1)) * 5,
    torch.randn(9, 7, generator=torch.Generator().manual_seed(2)).masked_fill(torch.eye(9, 7).bool(), float("-inf")),
]
FILTERS = [
    *((top_k, theirs.TopKLogitsWarper, k) for k in (1, 3, 50, 99)),
    *((top_p, theirs.TopPLogitsWarper, p) for p in (1e-6, 0.1, 0.5, 0.9, 0.999, 1.0)),
    *((min_p, theirs.MinPLogitsWarper, p) for p in (0.0, 0.01, 0.3, 0.99)),
    *((typical, theirs.TypicalLogitsWarper, p) for p in (0.01, 0.2, 0.5, 0.95)),
]


@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize(("ours", "their", "setting"), FILTERS)
def test_filters(ours, their, setting, logits):
    found, wanted = ours(logits, setting), their(setting)(None, logits.clone())
    assert torch.equal(found, wanted)
    assert (found == logits).any(1).all()


def test_filters_narrow():
    """What is compared above is not all or nothing."""
    kept = {
        (ours.__name__, setting): (ours(LOGITS[1], setting) > float("-inf")).sum().item()
        for ours, _, setting in FILTERS
    }
    assert len({count for (name, _), count in kept.items() if name == "typical"}) > 2
    assert all(9 <= count <= 450 for count in kept.values())


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("logits", LOGITS)
def test_penalties(logits, penalty):
    ids = torch.randint(logits.shape[1], (9, 4), generator=torch.Generator().manual_seed(3))
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    wanted = theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    assert torch.equal(penalised(logits, seen, penalty), wanted)


CHOICES = [
    dict(zip(("temperature", "top_k", "top_p", "min_p", "typical"), values))
    for values in itertools.product((0.6, 1.0, 1.7), (None, 20), (None, 0.8), (None, 0.05), (None, 0.7))
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_together_in_their_order(choice):
    """Distributions after all that `generate` would put in a row, in the order in which it does."""
    config = GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=50)
    model = GPT2LMHeadModel(config)
    given = {("typical_p" if name == "typical" else name): value for name, value in choice.items() if value is not None}
    settings, _ = model._prepare_generation_config(None, do_sample=True, **{"top_k": 0, **given})
    chain = model._get_logits_processor(settings, 1, torch.zeros(9, 1, dtype=torch.long), None, [])
    names = [type(one).__name__ for one in chain]
    assert len(names) == sum(value is not None for value in choice.values()) - (choice["temperature"] == 1)
    for logits in LOGITS[:2]:
        wanted = chain(torch.zeros(9, 1, dtype=torch.long), logits.clone()).softmax(-1)
        found = Choice(**choice).probabilities(logits)
        assert torch.equal(found > 0, wanted > 0)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


# A small random GPT-2 over bytes, ours and theirs

BOS, EOS, PAD = 257, 258, 256
NEVER = [PAD, BOS, 259]


def pair(shape: dict, dtype=torch.float64, louder: float = 2.0) -> tuple[GPT2LMHeadModel, Model]:
    config = GPT2Config(**shape, vocab_size=260, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    reference = stirred(GPT2LMHeadModel(config)).to(dtype)
    with torch.no_grad():
        reference.transformer.wte.weight[EOS] *= louder  # or the end token would hardly ever be the likeliest
    family = family_of(reference)
    ours = family.model()
    text = ours.streams["text"].replace(tokenizer=find("tokenization", "bytes").Config(), ends=True)
    ours = ours.replace(streams={"text": text})
    model = Model(ours, {"text": text.build()}).eval().to(dtype)
    family.load(files(reference)[1], model)
    return reference, model


def padded(prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as their left-padded ids [b n], and which are there."""
    rows = [[BOS, *prompt.encode()] for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    return ids, (ids != PAD).long()


SHAPES = [
    {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64},
    {"n_embd": 15, "n_head": 3, "n_layer": 2, "n_positions": 48, "n_inner": 23},
    {"n_embd": 8, "n_head": 1, "n_layer": 1, "n_positions": 40},
]
PROMPTS = ["a", "Once upon a time", "é", "to be or not", "xyz"]


def whole(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("beams", "count", "length", "penalty"),
    [(2, 1, 8, 1.0), (4, 3, 12, 1.0), (3, 3, 12, 0.0), (5, 2, 10, 2.0), (4, 4, 6, -1.0), (2, 2, 1, 1.0)],
)
def test_beams(shape, beams, count, length, penalty):
    """Several prompts of unequal length, several returned, with an end token and a length penalty: ids and scores."""
    reference, model = pair(shape)
    ids, mask = padded(PROMPTS)
    wanted = reference.generate(
        ids, attention_mask=mask, num_beams=beams, num_return_sequences=count, max_new_tokens=length, do_sample=False,
        length_penalty=penalty, suppress_tokens=NEVER, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    found = model.draw(PROMPTS, beams=beams, count=count, length=length, length_penalty=penalty)
    assert [one.ids for one in found] == [whole(row) for row in wanted.sequences[:, ids.shape[1] :].tolist()]
    scores = torch.tensor([one.logprob / len(one.ids) ** penalty for one in found], dtype=torch.float64)
    torch.testing.assert_close(scores, wanted.sequences_scores.double(), atol=1e-4, rtol=1e-5)
    alone = [
        one
        for prompt in PROMPTS
        for one in model.draw(prompt, beams=beams, count=count, length=length, length_penalty=penalty)
    ]
    assert [one.ids for one in alone] == [one.ids for one in found]
    assert {one.stopped for one in found} <= {"end", "length"}


def test_beams_that_end():
    """Among the sequences compared above some end before the others, and beams find what greedy drawing does not."""
    ended, better = 0, 0
    for shape in SHAPES:
        _, model = pair(shape)
        found = model.draw(PROMPTS, beams=4, count=1, length=12, length_penalty=0.0)
        greedy = model.draw(PROMPTS, temperature=0, length=12)
        ended += sum(one.stopped == "end" for one in found)
        better += sum(one.logprob > other.logprob + 1e-6 for one, other in zip(found, greedy))
    assert 0 < ended < 15 and better > 3


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"beams": 3}])
@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_repetition_penalty(penalty, settings):
    """Of what stands in the prompt too; it changes what comes."""
    changed, more = 0, {"num_beams": settings.get("beams", 1)}
    for shape, prompt in itertools.product(SHAPES, PROMPTS):
        reference, model = pair(shape, louder=1.0)
        ids, mask = padded([prompt])
        wanted = reference.generate(
            ids, attention_mask=mask, max_new_tokens=15, do_sample=False, repetition_penalty=penalty,
            suppress_tokens=NEVER, **more,
        )  # fmt: skip
        (found,) = model.draw(prompt, length=15, repetition_penalty=penalty, **settings)
        assert found.ids == whole(wanted[0, ids.shape[1] :].tolist())
        changed += found.ids != model.draw(prompt, length=15, **settings)[0].ids
    assert changed > 3


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1.3, "top_k": 20}, {"beams": 3}, {"lookup": 2}]
)
def test_logprobs_are_the_reference_models(settings):
    """Of each drawn token under the whole distribution, whatever narrowed the choice."""
    reference, model = pair(SHAPES[0])
    for prompt in PROMPTS:
        (found,) = model.draw(prompt, length=12, repetition_penalty=1.2, seed=3, **settings)
        begun = [BOS, *prompt.encode()]
        logits = reference(torch.tensor([begun + found.ids])).logits[0]
        wanted = logits.log_softmax(-1)[len(begun) - 1 : -1].gather(1, torch.tensor(found.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found.logprobs, dtype=torch.float64), wanted, atol=1e-6, rtol=0)
        assert found.logprob == pytest.approx(float(wanted.detach().sum()), abs=1e-5)
