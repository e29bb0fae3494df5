"""The same picture more than once: in both splits, or under two labels."""

from __future__ import annotations

from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from densenet_keras.data.digests import equal_groups
from densenet_keras.data.prepare.listing import Listing


class Duplicates(NamedTuple):
    """Groups of rows whose pictures have the same bytes, each group in order.

    Attributes:
        in_both_splits: the evaluation would count pictures that were learned.
        under_two_labels: at least one of the labels is wrong.
        harmless: same split, same label.
    """

    in_both_splits: List[np.ndarray]
    under_two_labels: List[np.ndarray]
    harmless: int  # groups

    @staticmethod
    def find(rows: np.ndarray, digests: np.ndarray, listing: Listing) -> Duplicates:
        """The duplicates among pictures of a listing.

        Args:
            rows: of the listing, [n].
            digests: of their bytes, [n, 16] uint8.
        """
        order = np.argsort(rows, kind="stable")
        rows, digests = rows[order], digests[order]
        both, two, harmless = [], [], 0
        for members in equal_groups(digests):
            group = rows[members]
            splits, labels = np.unique(listing.split[group]), np.unique(listing.label[group])
            if len(splits) > 1:
                both.append(group)
            if len(labels) > 1:
                two.append(group)
            harmless += len(splits) == 1 and len(labels) == 1
        return Duplicates(both, two, harmless)

    def rows(self) -> Iterator[Tuple[int, int]]:
        """(number of the group, row) of each picture in a group that does harm, each group once."""
        groups = {int(group[0]): group for group in self.in_both_splits + self.under_two_labels}
        for number, first in enumerate(sorted(groups), 1):
            for row in groups[first]:
                yield number, int(row)

    def harmful(self) -> Dict[str, List[np.ndarray]]:
        """Groups that do harm, by kind."""
        return {"in_both_splits": self.in_both_splits, "under_two_labels": self.under_two_labels}

    def summary(self) -> Dict[str, int]:
        """Groups by kind."""
        return {
            **{kind: len(groups) for kind, groups in self.harmful().items()},
            "same_split_and_label": int(self.harmless),
        }
