"""One tool call's life: the diagrams' "Tool Execution State Machine" with the edges of DESIGN §4."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from tfo_mcp.domain.state_machine import StateMachine

Outcome = Literal["completed", "failed", "timed_out", "cancelled", "invalid"]
"""How an operation ended."""

FAILURES: Final[tuple[Outcome, ...]] = ("failed", "timed_out", "invalid")
"""Outcomes that count as errors; a cancellation is none."""


class ExecutionState(Enum):
    """Where a call is."""

    RECEIVED = "received"
    VALIDATING = "validating"
    VALIDATED = "validated"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"


class ExecutionTrigger(Enum):
    """What moves a call."""

    UNKNOWN_TOOL = "unknown tool"
    PARSE_REQUEST = "parse request"
    SCHEMA_VALID = "schema valid"
    SCHEMA_INVALID = "schema invalid"
    RUN_HANDLER = "run handler"
    HANDLER_SUCCESS = "handler success"
    HANDLER_ERROR = "handler error"
    TIMEOUT = "timeout"
    CANCEL = "cancel"


_S, _T = ExecutionState, ExecutionTrigger

EXECUTION_TRANSITIONS = {
    (_S.RECEIVED, _T.PARSE_REQUEST): _S.VALIDATING,
    (_S.RECEIVED, _T.UNKNOWN_TOOL): _S.FAILED,
    (_S.VALIDATING, _T.SCHEMA_VALID): _S.VALIDATED,
    (_S.VALIDATING, _T.SCHEMA_INVALID): _S.FAILED,
    (_S.VALIDATED, _T.RUN_HANDLER): _S.EXECUTING,
    (_S.EXECUTING, _T.HANDLER_SUCCESS): _S.COMPLETED,
    (_S.EXECUTING, _T.HANDLER_ERROR): _S.FAILED,
    (_S.EXECUTING, _T.TIMEOUT): _S.TIMED_OUT,
    (_S.EXECUTING, _T.CANCEL): _S.CANCELLED,
}


def new_execution() -> StateMachine[ExecutionState, ExecutionTrigger]:
    """The machine of one call, at Received."""
    return StateMachine("tool execution", EXECUTION_TRANSITIONS, ExecutionState.RECEIVED)
