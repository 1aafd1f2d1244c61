"""The command line: one verb, one file. A verb's file has a docstring (its help), `arguments(parser)` and `run(args)`.

Nothing heavy is imported here or at the top of a verb's file: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sevenfold.core.errors import SevenfoldError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise SevenfoldError(f"{message} (see: {self.prog} --help)")


def verbs() -> dict[str, str]:
    """Verb → the first line of its file's docstring, without importing it."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem] = docstring.splitlines()[0] if docstring else ""
    return found


def usage() -> str:
    """What `sevenfold --help` prints."""
    lines = [
        "usage: sevenfold VERB …",
        "",
        "From a file of data of any kind to a foundation model: pretrained, adapted, measured, explained and used.",
        "",
        *(f"  {verb:<10} {told}" for verb, told in verbs().items()),
        "",
        "sevenfold VERB --help tells more.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb. Exit codes: 0 done, 2 something the user can mend, 128+n stopped by signal n after saving."""
    args = [*(sys.argv[1:] if argv is None else argv)]  # not list(…): here that is the verb, once it was imported
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if args[0] == "--version":
        from sevenfold import __version__

        print(__version__)
        return 0
    name = args[0]
    if name not in verbs():
        print(f"sevenfold: there is no verb {name!r}{did_you_mean(name, verbs())}", file=sys.stderr)
        return 2
    verb = importlib.import_module(f"sevenfold.cli.{name}")
    parser = Parser(f"sevenfold {name}", description=verb.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verb.arguments(parser)
    try:
        return verb.run(parser.parse_intermixed_args(args[1:])) or 0
    except SevenfoldError as error:
        if not error.elsewhere:
            print(f"sevenfold: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it any more
        return 141
    except OSError as error:
        print(f"sevenfold: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sevenfold: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
