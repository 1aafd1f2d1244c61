"""The prose keeps its word: recipes decode, commands parse, links lead somewhere, examples pass the checks."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sevenfold as sf
from sevenfold.assembly.model import ModelConfig
from sevenfold.assembly.wiring import check_wiring
from sevenfold.cli import Parser, main, verbs
from sevenfold.core import notation
from sevenfold.core.part import encode
from sevenfold.core.rooms import ROOMS, kinds
from sevenfold.training.recipe import read_recipe, shipped, shipped_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "catalogue.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
PART = re.compile(r"# mylab/(\w+)\.py  \((\w+)\)\n")
OF_MYLAB = ("token_shift", "mylab")


def blocks(*languages: str) -> list:
    """Every fenced block in one of these languages, with its page and number as its name."""
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if language in languages
    ]


def commands() -> list[str]:
    """Every command of ours in a block or in line, without those that are shown to fail."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in FENCE.findall(text):
            lines = block.splitlines()
            for place, line in enumerate(lines):
                fails = "".join(lines[place + 1 : place + 2]).startswith("sevenfold:")
                if language in ("sh", "console") and line.removeprefix("$ ").startswith("sevenfold ") and not fails:
                    if language == "sh" or line.startswith("$"):
                        found.append(line.removeprefix("$ "))
        found += re.findall(r"`(sevenfold [a-z][^`\n]*)`", FENCE.sub("", text))
    return sorted(set(found))


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_decode_and_their_wiring_holds(text):
    data = notation.parse(text)
    if not {"data", "streams", "trunks", "objective"} <= data.keys() or data.get("start"):
        pytest.skip("a piece of a recipe, or one that begins from what is not here")
    recipe = read_recipe(data)
    model = ModelConfig(streams=recipe.streams, trunks=recipe.trunks, heads=recipe.heads)
    check_wiring(model)
    recipe.objective.part.heads(recipe.objective, model, {})


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    name, *args = shlex.split(command, comments=True)[1:]
    assert name in verbs()
    if not args:
        return  # only named
    verb = importlib.import_module(f"sevenfold.cli.{name}")
    parser = Parser(f"sevenfold {name}")
    verb.arguments(parser)
    given = parser.parse_intermixed_args(args)
    recipe = getattr(given, "recipe", None) or getattr(given, "what", "")
    if name in ("train", "show") and shipped(str(recipe)) and not any(word in command for word in OF_MYLAB):
        read_recipe(recipe, given.overrides)


@pytest.mark.parametrize("text", blocks("python"))
def test_python_can_be_read_and_names_what_is_there(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sf":
            assert hasattr(sf, node.attr), node.attr
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sevenfold."):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_every_shipped_recipe_has_its_row():
    rows = re.findall(r"^\| `(\w+)` \|.*`sevenfold train (\w+)", (ROOT / "docs/recipes.md").read_text(), re.M)
    assert all(name == trained for name, trained in rows)
    assert sorted(name for name, _ in rows) == sorted(file.stem for file in shipped_folder().glob("*.yaml"))


def test_every_verb_has_its_row():
    rows = re.findall(r"^\| `(\w+)` \|.*`sevenfold (\w+)", (ROOT / "README.md").read_text(), re.M)
    assert all(name == shown for name, shown in rows)
    assert sorted(name for name, _ in rows) == sorted(verbs())


def test_the_catalogue_names_every_part(capsys):
    assert main(["list", "--markdown"]) == 0
    page = capsys.readouterr().out
    for room in ROOMS:
        section = page.split(f"\n## {room}\n")[1] if room != next(iter(ROOMS)) else page
        section = re.split(r"\n## ", section.removeprefix(f"## {room}\n"))[0]
        assert re.findall(r"^### `(\w+)`$", section, re.M) == list(kinds(room))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or path == "catalogue.md":  # the catalogue is generated
            continue
        there = page.parent / path if path else page
        assert there.is_file(), target
        if anchor:
            heads = [_anchor(head) for head in re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)]
            assert anchor in heads, target


def _anchor(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")


def test_the_tower_that_is_brought_along_has_the_shape_of_the_run():
    recipe = next(filter(None, map(_spliced, FENCE.findall((ROOT / "docs/house.md").read_text(encoding="utf-8")))))
    tower = encode(read_recipe(recipe).trunks["v"])
    assert tower == {**encode(read_recipe("tiny_mae").trunks["enc"]), "frozen": True}


def _spliced(block: tuple[str, str]) -> dict:
    """The recipe of a block, if it is the one whose words stand behind the vectors of a tower."""
    data = notation.parse(block[1]) if block[0] == "yaml" else {}
    return data if "v" in data.get("trunks", {}).get("lm", {}).get("inputs", []) else {}


# The parts of docs/extend.md, installed as a package
def parts() -> dict[str, tuple[str, str]]:
    """Kind → (room, file) of every part that the page shows."""
    text = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    files = [block for language, block in FENCE.findall(text) if language == "python"]
    return {found[1]: (found[2], block) for block in files if (found := PART.match(block))}


def test_the_page_shows_a_part_of_every_room():
    assert {room for room, _ in parts().values()} == set(ROOMS)


def test_the_parts_of_the_page_pass_the_checks_of_their_rooms(tmp_path):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").write_text("")
    for kind, (_, text) in parts().items():
        (tmp_path / "mylab" / f"{kind}.py").write_text(text, encoding="utf-8")
    installed = tmp_path / "mylab-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    entries = [f"{room}.{kind} = mylab.{kind}" for kind, (room, _) in parts().items()]
    (installed / "entry_points.txt").write_text("\n".join(["[sevenfold.parts]", *entries]) + "\n")
    script = (
        "import sys; from sevenfold import conformance\n"
        "wrong = [(kind, r.name, r.message) for room, _, kind in (name.partition('.') for name in sys.argv[1:])"
        " for r in conformance.run(room, kind) if not r.ok]\n"
        "sys.exit(str(wrong) if wrong else 0)"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    names = [f"{room}.{kind}" for kind, (room, _) in parts().items()]
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
