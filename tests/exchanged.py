"""Published folders for tests: random twins of `transformers` with a tokenizer, as their own libraries write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SENTENCES = [
    "The cat sat on the mat.",
    "A dog ran over the hill, and home.",
    "Ten owls count leaves; 12 é 中 \U0001f600",
]


def tokenizer(folder: Path, around: bool = False, **special: str) -> PreTrainedTokenizerFast:
    """Byte pairs with special tokens (by default `<|endoftext|>` as begin and end), saved into a folder. `around`: a text is
    put between bos and eos."""
    special = special or {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces = list(dict.fromkeys(special.values()))
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=pieces, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(SENTENCES * 4, trainer)
    if around:
        first, last = special["bos_token"], special["eos_token"]
        ids = [(piece, inner.token_to_id(piece)) for piece in (first, last)]
        inner.post_processor = processors.TemplateProcessing(f"{first} $A {last}", None, ids)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.save_pretrained(folder)
    return made


def gpt2(folder: Path | None = None, **changes: Any) -> GPT2LMHeadModel:
    """A tiny GPT-2, written into a folder with its tokenizer."""
    shape = {"n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 300, "n_positions": 64}
    transformers.set_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape | changes, bos_token_id=0, eos_token_id=0)).eval()
    if folder is not None:
        model.save_pretrained(folder)
        tokenizer(folder)
    return model


def reloaded(kind: Any, folder: Path) -> Any:
    """What `transformers` makes of a folder: nothing missing, nothing left over."""
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, problems
    return model.eval()
