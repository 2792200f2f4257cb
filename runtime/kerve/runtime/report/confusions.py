"""Confusion counts, in memory linear in the number of classes, not quadratic."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from kerve.runtime.datatypes import Array

__all__ = ["Confusions"]

#: Maximum number of distinct confusions that are counted; with thousands of classes there could be millions.
MOST_KINDS = 2**18


class Confusions:
    """Counts of each class as label, as prediction, and as both; and of each confusion of two classes."""

    def __init__(self, classes: int = 0) -> None:
        self.labels, self.chosen, self.right = np.zeros((3, classes), np.int64)
        self._wrong: Counter[int] = Counter()

    def add(self, labels: Array, chosen: Array) -> None:
        """Count flat arrays of class numbers."""
        classes = len(self.labels)
        hits = labels == chosen
        self.labels += np.bincount(labels, minlength=classes)
        self.chosen += np.bincount(chosen, minlength=classes)
        self.right += np.bincount(labels[hits], minlength=classes)
        kinds, counts = np.unique(labels[~hits] * classes + chosen[~hits], return_counts=True)
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            if kind in self._wrong or len(self._wrong) < MOST_KINDS:
                self._wrong[kind] += count

    def matrix(self) -> Array:
        """Return counts by label and prediction."""
        matrix = np.diag(self.right)
        for label, chosen, count in self.most():
            matrix[label, chosen] = count
        return matrix

    def most(self, count: int | None = None) -> Iterator[tuple[int, int, int]]:
        """Yield the most frequent confusions: label, prediction, count."""
        for kind, often in sorted(self._wrong.items(), key=lambda item: (-item[1], item[0]))[:count]:
            yield *divmod(kind, len(self.labels)), often
