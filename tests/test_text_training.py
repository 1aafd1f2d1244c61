"""Merges of text tokenizers against brute force: every count made anew, from the whole text, before every merge."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import tokenizers

from sevenfold.blocks.tokenization import bpe
from sevenfold.blocks.tokenization._likelihood import cut, joined, merged, merges
from sevenfold.blocks.tokenization.bpe import BPE
from sevenfold.blocks.tokenization.characters import Characters
from sevenfold.blocks.tokenization.smiles import Smiles, pieces
from sevenfold.blocks.tokenization.wordpiece import WordPiece
from sevenfold.blocks.tokenization.words import Words
from sevenfold.core.errors import CheckpointError
from sevenfold.data.source.grown import Grown


def random_words(seed: int, letters: str = "abcd", count: int = 60) -> dict[str, int]:
    draw = np.random.default_rng(seed)
    words = {"".join(draw.choice(list(letters), draw.integers(1, 9))): int(draw.integers(1, 30)) for _ in range(count)}
    return words | {"aaaaaaa": 7, "abababab": 5}


def counted(words: dict[str, int], spelled: dict[str, list[str]]) -> tuple[Counter, Counter]:
    """(pieces, neighbouring pairs) of the whole text as it is cut now."""
    single, pairs = Counter(), Counter()
    for word, times in words.items():
        for piece in spelled[word]:
            single[piece] += times
        for pair in zip(spelled[word], spelled[word][1:]):
            pairs[pair] += times
    return single, pairs


def by_force(words: dict[str, int], least: int):
    """Merges by likelihood in exact fractions."""
    spelled = {word: cut(word) for word in words}
    while True:
        single, pairs = counted(words, spelled)
        able = [pair for pair, count in pairs.items() if count >= least]
        if not able:
            return
        best = min(
            able, key=lambda pair: (-Fraction(pairs[pair], single[pair[0]] * single[pair[1]]), -pairs[pair], pair)
        )
        yield best
        spelled = {word: merged(found, best) for word, found in spelled.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [1, 2, 12])
def test_likelihood_merges_are_those_of_brute_force(seed, least):
    words = random_words(seed)
    wanted = list(islice(by_force(words, least), 120))
    assert len(wanted) > 20
    assert list(islice(merges(words, least), 120)) == wanted


def test_likelihood_is_not_frequency():
    """a b stand together often because both are frequent; q u because they belong together."""
    words = {"ab": 50, "ac": 50, "cb": 50, "qu": 3, "bab": 20}
    assert next(merges(words, 1)) == ("q", "##u")


def test_wordpiece_is_made_of_these_merges():
    raws = ["the queen quietly quoted the quick thesis", "she quit the theatre", "quaint theories"] * 4
    tokenizer = WordPiece.Config(size=90, min_count=2).build()
    tokenizer.fit(raws)
    words = Counter(word for raw in raws for word in raw.split())
    letters = {letter for word in words for letter in word}
    inside = {f"##{letter}" for word in words for letter in word[1:]}
    learned = [tokenizer.piece(id) for id in range(5 + len(letters) + len(inside), tokenizer.size)]
    wanted = list(dict.fromkeys(joined(*pair) for pair in by_force(words, 2)))
    assert learned == wanted[: len(learned)] and len(learned) > 20


def test_wordpiece_is_loaded_and_encodes_in_the_library(tmp_path):
    raws = ["hug pug hugs bun pun bugs hugging", "the cat carries stones; the cats rest."] * 9
    tokenizer = WordPiece.Config(size=120).build()
    tokenizer.fit(raws)
    tokenizer.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*raws, "Hugs and unseen puns?", "Ω"]:
        assert theirs.encode(text, add_special_tokens=False).ids == tokenizer.encode(text).values.tolist()


def test_the_threshold_is_the_largest_that_fills_the_vocabulary():
    raws = ["".join(word + " " for word in random_words(seed, "abcdefgh")) for seed in range(30)]
    chosen = WordPiece.Config(size=200).build()
    chosen.fit(raws)
    sizes = {}
    for least in (2, 4, 8, 16, 32, 64, 128, 256, 512):
        one = WordPiece.Config(size=200, min_count=least).build()
        one.fit(raws)
        sizes[least] = one
    most = max(least for least, one in sizes.items() if one.size == 200)
    assert [chosen.piece(id) for id in range(200)] == [sizes[most].piece(id) for id in range(200)]
    assert most > 2


def byte_pairs_by_force(words: Counter, many: int, least: int) -> list[tuple[str, str]]:
    """The most frequent pair, again and again; ties by the smaller pair of ids, the alphabet in the order of its letters."""
    alphabet = sorted(set("".join(words)) | set(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    ids = {letter: id for id, letter in enumerate(alphabet)}
    spelled, found = {word: list(word) for word in words}, []
    while len(found) < many:
        pairs = counted(dict(words), spelled)[1]
        able = [pair for pair, count in pairs.items() if count >= least]
        if not able:
            break
        best = min(able, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        found.append(best)
        ids.setdefault("".join(best), len(ids))
        spelled = {word: _plainly(symbols, best) for word, symbols in spelled.items()}
    return found


def _plainly(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    found, place = [], 0
    while place < len(symbols):
        two = tuple(symbols[place : place + 2]) == pair
        found.append("".join(pair) if two else symbols[place])
        place += 2 if two else 1
    return found


@pytest.mark.parametrize("seed", range(4))
def test_byte_pair_merges_are_those_of_brute_force(seed):
    words = Counter(random_words(seed, "abcdé"))
    text = " ".join(word for word, times in words.items() for _ in range(times))
    tokenizer = BPE.Config(size=360).build()
    tokenizer.fit([text])
    cutter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    seen = Counter(word for word, _ in cutter.pre_tokenize_str(text))
    wanted = byte_pairs_by_force(seen, 100, 2)
    names = {id: piece for piece, id in tokenizer.inner.get_vocab().items()}
    assert [names[260 + place] for place in range(tokenizer.size - 260)] == ["".join(pair) for pair in wanted]
    assert len(wanted) == 100


def test_characters():
    tokenizer = Characters.Config().build()
    tokenizer.fit(["naïve 中文 𝄞", "abc\n"])
    for text in ("中文 abc", "𝄞\n𝄞", "ïï"):
        assert tokenizer.decode(tokenizer.encode(text).values) == text
    assert tokenizer.encode("a€b").values.tolist()[1] == tokenizer.specials["unk"]
    assert tokenizer.decode(tokenizer.encode("a€b").values) == "a\ufffdb"
    small = Characters.Config(size=7).build()
    small.fit(["aaabbbc"])
    assert small.alphabet == "ab"


def test_characters_of_a_damaged_file(tmp_path):
    tokenizer = Characters.Config().build()
    tokenizer.fit(["abc"])
    tokenizer.save(tmp_path)
    for wrong in ('["b", "a"]', '["ab"]', '["\\ud800"]', "{}", "[]"):
        (tmp_path / "vocab.json").write_text(wrong)
        with pytest.raises(CheckpointError, match=r"vocab\.json: is not a sorted list of characters"):
            Characters.Config().build().restore(tmp_path)


def test_words_keep_the_frequent_ones_and_lose_the_others():
    tokenizer = Words.Config(size=8).build()
    tokenizer.fit(["the cat saw the dog", "the cat ran", "a cat"])
    assert [tokenizer.piece(id) for id in range(5, 8)] == ["cat", "the", "a"]
    assert tokenizer.encode("the dog ran").values.tolist() == [6, 1, 1]
    assert tokenizer.decode(tokenizer.encode("the cat").values) == "the cat"


def test_smiles_tokens_are_atoms_bonds_and_rings():
    text = "C[C@@H](N)C(=O)O.[Na+].c1ccc(Cl)cc1Br/C=C\\N%12%12"
    found = pieces(text)
    assert "".join(found) == text
    assert {"[C@@H]", "[Na+]", "Cl", "Br", "%12", "/", "\\", ".", "c", "="} <= set(found)
    assert "B" not in found and "l" not in found
    tokenizer = Smiles.Config().build()
    tokenizer.fit([text])
    assert tokenizer.decode(tokenizer.encode(text).values) == text
    assert tokenizer.decode(tokenizer.encode("CI").values) == "C*"
    assert [text[a:b] for a, b in tokenizer.spans(text)] == found


@pytest.mark.parametrize(("text", "place"), [("CCx", 2), ("C C", 1), ("[C", 0), ("CC]", 2), ("é", 0)])
def test_what_is_no_smiles(text, place):
    with pytest.raises(ValueError, match=f"at position {place} is no part of a SMILES string"):
        pieces(text)


def test_smiles_of_a_chemistry_library():
    """Canonical strings that RDKit writes, where it is installed, are cut into as many atoms as it counts."""
    chem = pytest.importorskip("rdkit.Chem")
    for text in ["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "[O-][N+](=O)c1ccc(Cl)cc1", "C[Si](C)(C)C"]:
        molecule = chem.MolFromSmiles(text)
        atoms = [piece for piece in pieces(chem.MolToSmiles(molecule)) if piece[0] == "[" or piece[0].isalpha()]
        assert len(atoms) == molecule.GetNumAtoms()


WEIRD = "  it's\n\n\tso <pad> 中文 é\u0301 \U0001f600 1234567 \x00 don't… a  b   c\n" * 3


def test_the_faster_engine_gives_the_same_ids():
    pytest.importorskip("gigatoken")
    draw = np.random.default_rng(0)
    tokenizer = BPE.Config(size=700).build()
    tokenizer.fit([WEIRD * 5, *BPE.example(0)])
    texts = [WEIRD, "", " ", *BPE.example(3)]
    texts += ["".join(chr(point) for point in draw.integers(1, 0x3000, 60)) for _ in range(200)]
    for text in texts:
        found = tokenizer.encode(text).values
        assert tokenizer._engine
        tokenizer.inner.encode_special_tokens = True
        assert found.tolist() == tokenizer.inner.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(found) == text


@pytest.mark.parametrize("kind", [BPE, WordPiece, Words])
def test_a_long_text_in_pieces_gives_the_same_ids(kind, monkeypatch):
    monkeypatch.setattr("sevenfold.blocks.tokenization.bpe.accelerated", lambda inner, samples: None)
    text = " ".join([WEIRD, *BPE.example(0)]) * 90
    tokenizer = kind.Config(size=500).build()
    tokenizer.fit([text[:3000]])
    tokenizer.inner.encode_special_tokens = True
    assert len(text) > 1 << 16
    assert tokenizer.encode(text).values.tolist() == tokenizer.inner.encode(text, add_special_tokens=False).ids


def test_molecules_that_are_grown_are_molecules():
    """RDKit, where it is installed, reads every one and counts the atoms that the source says."""
    chem = pytest.importorskip("rdkit.Chem")
    source = Grown.Config(samples=60).build()
    for index in range(len(source)):
        sample = source[index]
        assert chem.MolFromSmiles(sample["smiles"]).GetNumAtoms() == sample["atoms"]


def test_only_runs_longer_than_the_limit_are_cut_for_learning():
    text = "to be " * 2000 + "A" * (2 * bpe.LONGEST + 5) + " or " + "C" * bpe.LONGEST
    found = list(bpe.cut(text))
    assert "".join(found) == text and len(found) == 3 and found[1] == "A" * bpe.LONGEST
    assert list(bpe.cut("not to be " * 2000)) == ["not to be " * 2000] and list(bpe.cut("")) == [""]
