"""Names of streams, trunks and heads: any word, also those of torch's own methods; nothing that leads out of a folder."""

from __future__ import annotations

import pytest

from sevenfold.conformance.fault._kit import ready_of, small
from sevenfold.core import notation
from sevenfold.core.errors import ConfigError


@pytest.mark.parametrize("name", ["type", "values", "train", "größe", "a b-c_1"])
def test_any_word_is_a_name(name):
    data = small()
    data["streams"] = {
        name: {**data["streams"]["image"], "field": "image"},
        "keys": {"kind": "label", "field": "label"},
    }
    data["trunks"] = {"items": {**data["trunks"]["enc"], "inputs": [name]}}
    state = ready_of(data).model.state_dict()
    assert any(key.startswith("heads.keys.") for key in state) and any(key.startswith("trunks.items.") for key in state)


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "a.b", "", "a\\b", "x" * 101, "a\n"])
def test_what_leads_elsewhere_is_no_name(name):
    data = small()
    data["trunks"] = {name: data["trunks"]["enc"]}
    with pytest.raises(ConfigError, match="a name is letters, digits, _ and -"):
        ready_of(data)


def test_words_that_begin_like_numbers_and_truths_are_words():
    assert notation.parse("a: truetrue\nb: true\nc: " + "9" * 300) == {"a": "truetrue", "b": True, "c": "9" * 300}
