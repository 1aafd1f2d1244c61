"""Files that mean harm. Each function writes one into an empty folder and gives what a person would do with it; `mark` is a path that
code in it would create."""

from __future__ import annotations

from sevenfold.conformance.fault._payloads import bombs, code, paths
from sevenfold.conformance.fault._payloads._written import Payload

PAYLOADS: dict[str, Payload] = {
    name: value
    for module in (code, bombs, paths)
    for name, value in vars(module).items()
    if name.startswith(("code_", "bomb_", "path_"))
}
"""By name, which begins with what it would do."""
