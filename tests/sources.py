"""Sources made from settings, and every error that one of them gives."""

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.data.source import Source


def make(kind, **config) -> Source:
    return find("source", kind).Config(**config).build()


def errors_of(config) -> list:
    """Our errors in building, splitting and reading a source; others are raised."""
    found = []
    try:
        source = config.build()
        source.split()
    except DataError as error:
        return [error]
    for index in range(len(source)):
        try:
            source[index]
        except BadSample as error:
            found.append(error)
    return found
