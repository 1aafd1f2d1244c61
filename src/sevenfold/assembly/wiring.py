"""What is wrong with a wiring, told before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevenfold.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from sevenfold.assembly.model import ModelConfig


def check_wiring(config: ModelConfig) -> None:
    """Refuse, before anything is built, names that are not there and trunks that read later ones."""
    earlier: list[str] = []
    for name, trunk in config.trunks.items():
        if name in config.streams:
            raise ConfigError(f"trunks.{name}: a stream has the same name")
        for field, reads in (("inputs", trunk.inputs), ("cross_attends", (trunk.cross_attends,))):
            for given in reads:
                if given is None or given in earlier or (field == "inputs" and given in config.streams):
                    continue
                if given in config.trunks:
                    raise ConfigError(
                        f"trunks.{name}.{field}: {given!r} comes later (or is itself): a trunk reads earlier trunks only"
                    )
                known = [*(config.streams if field == "inputs" else ()), *earlier]
                raise ConfigError(f"trunks.{name}.{field}: there is no {given!r}{did_you_mean(given, known)}")
        told = trunk.condition
        if told is not None and told not in config.streams:
            raise ConfigError(
                f"trunks.{name}.condition: there is no stream {told!r}{did_you_mean(told, config.streams)}"
            )
        if told in trunk.inputs:
            raise ConfigError(f"trunks.{name}.condition: {told!r} is among its inputs already: take it out of one")
        if not trunk.inputs and not (trunk.registers and trunk.cross_attends and not trunk.class_token):
            raise ConfigError(
                f"trunks.{name}.inputs: without any, a trunk is of latents: give it registers and cross_attends, no class_token"
            )
        if len(set(trunk.inputs)) != len(trunk.inputs):
            raise ConfigError(f"trunks.{name}.inputs: an input is named twice: {list(trunk.inputs)}")
        earlier.append(name)
    for name, head in config.heads.items():
        if head.trunk not in config.trunks:
            raise ConfigError(
                f"heads.{name}.trunk: there is no {head.trunk!r}{did_you_mean(head.trunk, config.trunks)}"
            )
        if head.stream is not None and head.stream not in config.streams:
            raise ConfigError(
                f"heads.{name}.stream: there is no {head.stream!r}{did_you_mean(head.stream, config.streams)}"
            )
        if head.projection.part.reads_ids:
            raise ConfigError(f"heads.{name}.projection: {head.projection.kind!r} reads ids, and a trunk gives vectors")
        tied = head.projection.part.reads_table
        if tied and (head.stream is None or head.stream not in config.trunks[head.trunk].inputs):
            raise ConfigError(f"heads.{name}: a tied head needs a stream that trunk {head.trunk!r} reads")
