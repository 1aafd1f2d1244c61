"""The ledger of samples that could not be used: counted, listed, and too many stop the run."""

from __future__ import annotations

from sevenfold.core.errors import BadSample, DataError

LISTED = 10_000
ENOUGH = 100


class BadSamples:
    """Each sample counts once, by its `where`, however often it is met.

    `share` is the share of bad samples that is borne; `size` is how many samples there are, good and bad, if it is
    known: a set of less than 100 is judged once all of it was seen.
    """

    def __init__(self, share: float, size: int | None = None, listed: int = LISTED):
        self.share, self.size, self._most = share, size, listed
        self.listed: list[tuple[str, str]] = []
        """(where, why) of the first ones."""
        self.judged = False
        """Set when every sample was read and the share was borne: nothing more is to come."""
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, error: BadSample) -> None:
        """Note one sample that cannot be used."""
        if error.where not in self._known:
            self._known.add(error.where)
            if len(self.listed) < self._most:
                self.listed.append((error.where, error.why))

    def first(self, count: int) -> list[tuple[str, str]]:
        """(where, why) of the first few."""
        return self.listed[:count]

    def check(self, seen: int) -> None:
        """DataError if more than `share` of the `seen` samples (100 at least, or all) are bad, naming the first."""
        if self.judged:
            return
        size = ENOUGH if self.size is None else self.size
        seen = seen if self.size is None else min(seen, size)
        if seen < min(ENOUGH, size) or len(self) <= self.share * seen:
            return
        where, why = self.listed[0]
        raise DataError(
            f"{len(self)} of {seen} samples cannot be read, more than data.bad_share ({self.share:g}) allows; "
            f"the first is {where}: {why}"
        )
