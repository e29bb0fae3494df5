"""Answers, one for each picture, and how they are written down."""

from __future__ import annotations

import csv
from typing import IO, Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple


class Guess(NamedTuple):
    """One class that a picture may show."""

    number: int  # of the class, from 0
    label: str
    probability: float


class Answer(NamedTuple):
    """What the network says of one picture: guesses, the most probable first, or why it says nothing."""

    path: str
    top: Tuple[Guess, ...] = ()
    error: str = ""

    def as_json(self) -> Dict[str, Any]:
        """As --json has it: path, and either top or error."""
        if self.error:
            return {"path": self.path, "error": self.error}
        top = [{"class": g.number, "label": g.label, "probability": g.probability} for g in self.top]
        return {"path": self.path, "top": top}

    @staticmethod
    def from_json(values: Dict[str, Any]) -> Answer:
        """The inverse of `as_json`."""
        top = tuple(Guess(g["class"], g["label"], g["probability"]) for g in values.get("top", ()))
        return Answer(values["path"], top, values.get("error", ""))


def table(answers: Sequence[Answer]) -> List[str]:
    """Lines for people: path, then label and probability of each guess."""
    width = max((len(answer.path) for answer in answers), default=0)
    lines = []
    for answer in answers:
        guesses = "  ".join(f"{guess.label} {guess.probability:.1%}" for guess in answer.top)
        lines.append(f"{answer.path:<{width}}  {'error: ' + answer.error if answer.error else guesses}")
    return lines


def write_csv(file: IO[str], answers: Iterable[Answer], top_k: int) -> None:
    """A header and a line a picture: path, error, then class, label and probability of each guess."""
    writer = csv.writer(file)
    header = ["path", "error"]
    for place in range(1, top_k + 1):
        header += [f"class_{place}", f"label_{place}", f"probability_{place}"]
    writer.writerow(header)
    for answer in answers:
        cells: List[Any] = [answer.path, answer.error]
        for guess in answer.top:
            cells += [guess.number, guess.label, f"{guess.probability:.6f}"]
        writer.writerow(cells)
