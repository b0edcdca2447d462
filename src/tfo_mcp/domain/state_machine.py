"""A state machine as a table: what is not in the table cannot happen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from tfo_mcp.domain.errors import InvalidTransition

State = TypeVar("State", bound=Enum)
Trigger = TypeVar("Trigger", bound=Enum)


class StateMachine(Generic[State, Trigger]):
    """One machine's current state over its transition table.

    Args:
        name: as errors call it.
        table: (state, trigger) to next state; every edge that exists.
        initial: the state at the start.
    """

    __slots__ = ("_name", "_table", "state")

    def __init__(self, name: str, table: Mapping[tuple[State, Trigger], State], initial: State) -> None:
        self._name = name
        self._table = table
        self.state = initial

    def fire(self, trigger: Trigger) -> State:
        """Take the edge `trigger` and return the new state.

        Raises:
            InvalidTransition: the table has no such edge; the state stays.
        """
        following = self._table.get((self.state, trigger))
        if following is None:
            raise InvalidTransition(self._name, str(self.state.value), str(trigger.value))
        self.state = following
        return following

    def can(self, trigger: Trigger) -> bool:
        """Whether the table has the edge `trigger` from here."""
        return (self.state, trigger) in self._table
