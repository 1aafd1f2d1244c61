"""What the system says of the processor (Linux; elsewhere nothing)."""

from __future__ import annotations

from functools import cache


@cache
def facts() -> dict[str, str]:
    """Lines of /proc/cpuinfo about the first core."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                name, colon, value = line.partition(":")
                if not colon:
                    break
                found[name.strip()] = value.strip()
    except OSError:
        pass
    return found


@cache
def flags() -> frozenset[str]:
    """The instructions that it knows."""
    return frozenset((facts().get("flags") or facts().get("Features") or "").split())


def vendor() -> str:
    """Who made it: GenuineIntel, AuthenticAMD …; empty where the system does not say."""
    return facts().get("vendor_id", "")
