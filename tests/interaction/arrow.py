"""The arrows of the data flow diagrams, each with the behaviours that show it.

Nodes have the diagrams' own names, so that an arrow is found there; what it says is in our words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrow:
    """One edge of a flowchart, one transition of a state machine or one message of a sequence.

    Attributes:
        edge: `V3 → TE1`; a state inside another is `Ready/Idle`, where a machine begins and ends `[*]`.
        words: what goes along it, with the branch before it where the diagram has several.
        shown_by: ids of behaviours.
    """

    diagram: str
    edge: str
    words: str
    shown_by: tuple[str, ...]

    @property
    def name(self) -> str:
        """`Tool Execution: V3 → TE1 (arguments that fit get a span)`."""
        return f"{self.diagram}: {self.edge} ({self.words})"


def arrows(diagram: str, *rows: tuple[str, ...]) -> Sequence[Arrow]:
    """The arrows of a diagram, each as (edge, words, id, …), in the diagram's order."""
    return [Arrow(diagram, edge, words, tuple(shown_by)) for edge, words, *shown_by in rows]
