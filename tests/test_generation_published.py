"""A published folder is drawn from like any model: the text that transformers draws, from the command line too."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

import sevenfold as sf
from exchanged import gpt2
from sevenfold.cli import main
from sevenfold.core.errors import ConfigError

PROMPTS = ["The cat", "Ten owls count", "é 中"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    model = gpt2(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4, generator=torch.Generator().manual_seed(len(parameter)))
        model.transformer.wte.weight[0] *= 2.5
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}, {"repetition_penalty": 1.4}])
def test_the_same_text_as_the_reference(folder, more, capsys):
    """Ids that stand for nothing are never drawn; the begin and end token is one, and ends."""
    from transformers import GPT2LMHeadModel

    reference, tokenizer = GPT2LMHeadModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    model, flags = sf.load(folder), []
    ours = {"beams" if name == "num_beams" else name: value for name, value in more.items()}
    ours = ours if "beams" in ours else {"temperature": 0, **ours}
    for name, value in ours.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    unspelled = list(range(len(tokenizer), 300))
    ended = 0
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors="pt")
        ids = reference.generate(
            **given, max_new_tokens=20, do_sample=False, suppress_tokens=unspelled, pad_token_id=0, **more
        )[0]
        wanted = tokenizer.decode(ids, skip_special_tokens=True)
        (found,) = model.draw(prompt, length=20, **ours)
        assert found.raw == wanted
        new = ids[given["input_ids"].shape[1] :].tolist()
        assert found.ids == (new[: new.index(0) + 1] if 0 in new else new)
        ended += found.stopped == "end"
        capsys.readouterr()
        assert main(["generate", str(folder), prompt, "--length", "20", *flags]) == 0
        assert capsys.readouterr().out == wanted + "\n"
        assert max(id for one in model.draw(prompt, count=20, temperature=5.0, length=20) for id in one.ids) < len(
            tokenizer
        )
    assert ended > 0


def test_streamed_and_guessed_ahead(folder):
    model = sf.load(folder)
    for how in ({"seed": 3}, {"seed": 3, "lookup": 2}, {"seed": 3, "draft": sf.load(folder)}):
        for prompt in PROMPTS:
            text = "".join(piece.text for piece in model.stream(prompt, length=30, temperature=1.5, **how))
            assert prompt + text == model.generate(prompt, length=30, temperature=1.5, **how)[0]


def test_prompts_that_do_not_fit(folder):
    model = sf.load(folder)
    with pytest.raises(ConfigError, match="positions reach 64"):
        model.generate("The cat " * 40)
    with pytest.raises(ConfigError, match="at most 63 fit.* not 64"):
        model.generate("The", length=64)
    with pytest.raises(ConfigError, match="begin each item with at least one token"):
        model.generate("")
