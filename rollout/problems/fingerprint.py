"""Fingerprints of problems: they tell whether a file or data set has changed, and which rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.problems.listed import digest

MAX_NAMED = 5
"""Largest number of rows that a message names."""


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of rows, in their order."""

    keys: np.ndarray
    """Hash of each row's key, uint64, shape ``[N]``."""
    contents: np.ndarray
    """Hash of each row's question and reference, uint64, shape ``[N]``."""
    places: tuple[str, ...] = ()
    """Place of each row, for messages; unknown for fingerprints that were read from a file."""

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str]]) -> Fingerprint:
        """Return the fingerprint of rows, each given as its key, its content and its place."""
        found = [(digest(key), digest(content), place) for key, content, place in rows]
        keys, contents = (
            np.frombuffer(b"".join(hashes), dtype="<u8")
            for hashes in ([key for key, _, _ in found], [content for _, content, _ in found])
        )
        return cls(keys, contents, tuple(place for _, _, place in found))

    def summary(self, *, is_ordered: bool = False) -> dict[str, Any]:
        """Return the count and two hashes, as JSON holds them. `is_ordered`: the order of the rows counts."""
        order = slice(None) if is_ordered else np.lexsort((self.contents, self.keys))
        return {
            "count": len(self.keys),
            "keys": hashlib.sha256(self.keys[order].tobytes()).hexdigest(),
            "contents": hashlib.sha256(self.contents[order].tobytes()).hexdigest(),
        }

    def since(self, before: Fingerprint) -> str:
        """Return which rows were added, removed or changed; empty when only their order differs."""
        rows = list(zip(self.keys.tolist(), self.contents.tolist(), strict=True))
        others = list(zip(before.keys.tolist(), before.contents.tolist(), strict=True))
        new, old = Counter(rows) - Counter(others), Counter(others) - Counter(rows)
        new_keys, old_keys = (Counter(key for key, _ in found.elements()) for found in (new, old))
        changed, added, removed = new_keys & old_keys, new_keys - old_keys, old_keys - new_keys
        said = [
            (added, "added", self._where(rows, new, added)),
            (removed, "removed", ""),
            (changed, "with another question or answer", self._where(rows, new, changed)),
        ]
        return ", ".join(f"{keys.total():,} {what}{where}" for keys, what, where in said if keys)

    def num_new_keys(self, before: Fingerprint) -> int:
        """Return how many of the keys are new."""
        return len(set(self.keys.tolist()) - set(before.keys.tolist()))

    def _where(self, rows: list[tuple[int, int]], new: Mapping[tuple[int, int], int], keys: Mapping[int, int]) -> str:
        if not self.places:
            return ""
        found = [place for row, place in zip(rows, self.places, strict=True) if row in new and row[0] in keys and place]
        named = ", ".join(place.rpartition(", ")[2] for place in found[:MAX_NAMED])
        return f" ({named}{', …' * (len(found) > MAX_NAMED)})" if found else ""
