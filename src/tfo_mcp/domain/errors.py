"""Everything that can go wrong, as one tree.

```
DomainError
├── InvalidRequest                 the message is not allowed now
│   ├── SessionNotInitialized
│   ├── SessionAlreadyInitialized
│   ├── DuplicateRequestId
│   └── TooManySubscriptions
├── SessionClosing                 the server is on its way out
├── InvalidParams                  the message's content cannot be right
│   ├── UnknownTool
│   ├── UnknownResource
│   ├── NotSubscribable            it may change, and nobody would be told
│   ├── UnknownPrompt
│   ├── InvalidPromptArgument      missing, unknown, or not what it may be
│   ├── UnknownReference           nothing can be completed there
│   ├── UnknownCursor
│   └── UnknownLogLevel
├── ResourceUnavailable            it may be there, but cannot be read now
├── InternalError                  unforeseen; carries an error id, never a text
├── InvalidTransition              a state machine was asked for an edge that it has not
└── ToolFailure                    a tool could not do it; a sentence that the model can act on
    ├── InvalidArguments           the arguments do not fit the tool's schema
    ├── ResultTooLarge             it did, and gave more than may be sent
    ├── ToolTimedOut
    │   └── TurnTimedOut
    ├── PathRefused                outside the roots, or one of the server's own files
    ├── CommandRefused             a program, option or folder that commands may not have
    ├── StorageUnavailable
    ├── AuditUnavailable           what it was about to do could not be recorded, so it was not done
    ├── ConversationNotFound
    ├── ConversationClosed
    ├── ConversationBusy           another send to it is under way
    ├── MessageNotFound            the conversation has no message at that position
    ├── TraceNotFound              nothing with this id was recorded, or it is gone
    ├── InvalidQuery               SQL that asks for something else than the views, or too much
    ├── InvalidSearch              no words to search for, too many, or a place that was not given out
    ├── IdempotencyKeyReused
    ├── ToolsNotAllowed            beyond `claude.allow_tools`
    ├── InvalidOutputSchema        none that an answer can be made to fit
    ├── BudgetExceeded             nothing was sent
    ├── ConversationTooLong        for its model; nothing was sent
    └── ClaudeFailure              the API refused or could not be reached
        └── ClaudeNotConfigured    no key
```

`presentation/wire.py` holds the one table from here to JSON-RPC.
"""

from __future__ import annotations

from collections.abc import Sequence


class DomainError(Exception):
    """The root. `str(error)` is one sentence that may be shown to the client."""


class InvalidRequest(DomainError):
    """The request is well formed but not allowed now."""


class SessionNotInitialized(InvalidRequest):
    """A request came before `initialize`."""

    def __init__(self, method: str) -> None:
        super().__init__(f"{method!r} came before 'initialize'")


class SessionAlreadyInitialized(InvalidRequest):
    """A second `initialize` on one session."""

    def __init__(self) -> None:
        super().__init__("this session is already initialized")


class DuplicateRequestId(InvalidRequest):
    """A request carries the id of one that is still in flight."""

    def __init__(self, request_id: str | int) -> None:
        super().__init__(f"a request with id {request_id!r} is already in flight")


class TooManySubscriptions(InvalidRequest):
    """The client would follow more than `most` resources at once."""

    def __init__(self, most: int) -> None:
        super().__init__(f"too many subscriptions: at most {most} at a time")


class SessionClosing(DomainError):
    """A request came while the session closes."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class InvalidParams(DomainError):
    """The params of a known method cannot be right."""


class UnknownTool(InvalidParams):
    """No tool has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown tool: {name[:200]!r}")


class UnknownResource(InvalidParams):
    """No resource has this URI, and no template fits it, or nothing is there.

    Attributes:
        uri: which.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(f"unknown resource: {uri[:200]!r}")
        self.uri = uri


class NotSubscribable(InvalidParams):
    """The resource with this URI can be read, but its changes are not announced.

    Attributes:
        uri: which.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(f"changes of {uri[:200]!r} are not announced: read it when you need it")
        self.uri = uri


class UnknownPrompt(InvalidParams):
    """No prompt has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown prompt: {name[:200]!r}")


class InvalidPromptArgument(InvalidParams):
    """An argument of a prompt cannot be right; `why` is the rest of a sentence about the prompt."""

    def __init__(self, prompt: str, why: str) -> None:
        super().__init__(f"prompt {prompt!r} {why}")


class UnknownReference(InvalidParams):
    """What is to be completed is no argument of a prompt and no variable of a template here."""

    def __init__(self, what: str, argument: str) -> None:
        super().__init__(f"{what[:200]!r} has no argument {argument[:200]!r} that could be completed")


class UnknownCursor(InvalidParams):
    """The server has not given this cursor out."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"unknown cursor: {cursor[:200]!r}")


class UnknownLogLevel(InvalidParams):
    """No log level has this name."""

    def __init__(self, label: str, labels: Sequence[str]) -> None:
        super().__init__(f"unknown log level: {label[:200]!r}; there are {', '.join(labels)}")


class ResourceUnavailable(DomainError):
    """A resource, that of `uri`, may be there and cannot be read now."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"{uri[:200]!r} cannot be read now: {why}")
        self.uri = uri


class InternalError(DomainError):
    """Something unforeseen. Log and trace carry the same id; the cause's text goes nowhere else."""

    def __init__(self, error_id: str) -> None:
        super().__init__("Internal error")
        self.error_id = error_id


class InvalidTransition(DomainError):
    """An edge that a state machine has not."""

    def __init__(self, machine: str, state: str, trigger: str) -> None:
        super().__init__(f"{machine}: no edge {trigger!r} from state {state!r}")
        self.machine = machine
        self.state = state
        self.trigger = trigger


class ToolFailure(DomainError):
    """A tool could not do what it was asked; becomes a result with `isError: true`.

    Attributes:
        kept_in: the conversation that keeps the user's message, where it can be continued.
        closed: the conversation that keeps it, where this failure was one too many in a row.
        arrived: what Claude had said until then.
    """

    error_type = "tool_error"
    kept_in: str | None = None
    closed: str | None = None
    arrived: str = ""

    def __str__(self) -> str:
        sentence = super().__str__()
        if self.kept_in is not None:
            sentence = f"{sentence}; the message is kept, continue with conversation_id {self.kept_in!r}"
        if self.closed is not None:
            sentence = f"{sentence}. After so many failures in a row {ConversationClosed(self.closed)}"
        return f"{sentence}\n\nUntil then Claude had said:\n{self.arrived}" if self.arrived else sentence


class InvalidArguments(ToolFailure):
    """The arguments do not fit the tool's input schema (SEP-1303)."""

    error_type = "invalid_arguments"

    def __init__(self, tool: str, violations: Sequence[str]) -> None:
        super().__init__(f"invalid arguments for {tool!r}: " + "; ".join(violations))
        self.violations = tuple(violations)


class ResultTooLarge(ToolFailure):
    """A tool gave more than may be sent."""

    error_type = "result_too_large"

    def __init__(self, tool: str, limit: int) -> None:
        super().__init__(
            f"{tool!r} gave a result of more than {limit} characters (mcp.max_result_size): ask it for less at a time"
        )


class ToolTimedOut(ToolFailure):
    """A tool did not end within its deadline."""

    error_type = "timeout"

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} did not finish within {seconds:g} s and was stopped")


class TurnTimedOut(ToolTimedOut):
    """The turns before it took too long; nothing of this one was stored or sent."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the wait for the turns before this message, which was not sent,", seconds)


class PathRefused(ToolFailure):
    """A path leads outside the roots or to one of the server's own files."""

    error_type = "path_refused"


class StorageUnavailable(ToolFailure):
    """The database cannot be opened or written."""

    error_type = "storage_unavailable"


class CommandRefused(ToolFailure):
    """A command is not one that the operator allows, or could become another one."""

    error_type = "command_refused"


class AuditUnavailable(ToolFailure):
    """What a tool was about to do could not be recorded, so it was not done."""

    error_type = "audit_unavailable"

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(f"{tool!r} was not run, because the audit cannot record it: {reason}")


class ConversationNotFound(ToolFailure):
    """No conversation of this principal has this id."""

    error_type = "conversation_not_found"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"there is no conversation {conversation_id[:100]!r}: list_conversations tells which there are, and "
            "claude_conversation without a conversation_id starts one"
        )


class ConversationClosed(ToolFailure):
    """The conversation takes no more messages."""

    error_type = "conversation_closed"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(f"conversation {conversation_id!r} is closed: fork_conversation continues it in a new one")


class ConversationBusy(ToolFailure):
    """Somebody else appended to the conversation meanwhile."""

    error_type = "conversation_busy"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(f"conversation {conversation_id!r} is being continued: try again when that is done")


class MessageNotFound(ToolFailure):
    """A conversation has no message at a position; it has `count`."""

    error_type = "message_not_found"

    def __init__(self, conversation_id: str, position: int, count: int) -> None:
        known = f"its messages are 0 to {count - 1}" if count else "it has none yet"
        super().__init__(f"conversation {conversation_id!r} has no message {position}: {known}")


class TraceNotFound(ToolFailure):
    """No trace of this principal has this id, or none that is kept still."""

    error_type = "trace_not_found"

    def __init__(self, trace_id: str) -> None:
        super().__init__(f"no trace with the id {trace_id[:64]!r} is kept: telemetry.recorder_days says for how long")


class InvalidQuery(ToolFailure):
    """SQL that is none, asks for something else than the views, or takes too long."""

    error_type = "invalid_query"


class InvalidSearch(ToolFailure):
    """A search through conversations that cannot be meant."""

    error_type = "invalid_search"


class IdempotencyKeyReused(ToolFailure):
    """The key was given with another message before, or its turn cannot be continued any more."""

    error_type = "idempotency_key_reused"


class ToolsNotAllowed(ToolFailure):
    """Claude may not use a tool that the caller wants him to use."""

    error_type = "tools_not_allowed"

    def __init__(self, unknown: Sequence[str], allowed: Sequence[str]) -> None:
        names = ", ".join(repr(name[:100]) for name in unknown[:5])
        there_are = ", ".join(allowed) if allowed else "none"
        super().__init__(f"Claude may not use {names} here; the tools that he may use are: {there_are}")


class InvalidOutputSchema(ToolFailure):
    """A caller wants an answer to fit a schema that is none, or that the API does not take; `why` is a sentence."""

    error_type = "invalid_output_schema"

    def __init__(self, why: str) -> None:
        super().__init__(f"output_schema: {why}")


class BudgetExceeded(ToolFailure):
    """What is about to be sent would take more tokens than `claude.budget` has left; nothing was sent.

    Attributes:
        period: of which the budget is.
    """

    error_type = "budget_exceeded"

    def __init__(self, period: str, limit: int, used: int, needed: int) -> None:
        super().__init__(
            f"claude.budget.{period} is {limit} tokens, {used} are used, and the next request needs about {needed}: "
            "nothing was sent"
        )
        self.period = period


class ConversationTooLong(ToolFailure):
    """With the message the conversation would be longer than its model can take; nothing was sent."""

    error_type = "conversation_too_long"

    def __init__(self, tokens: int, model: str) -> None:
        super().__init__(
            f"with this message the prompt would have about {tokens} tokens, more than {model[:200]!r} can take: "
            "send a shorter one, or fork the conversation further up"
        )


class ClaudeFailure(ToolFailure):
    """The Messages API could not be reached, refused the request, or broke off its answer.

    Args:
        message: one sentence for the client.
        status: the HTTP status, None where there was no answer.
        request_id: the API's own id of the request, where it gave one.
        counts: whether it counts towards `claude.max_failures` (DESIGN §4: an expired key must not
            close people's conversations).
        may_have_cost: whether the API may have counted tokens that nobody here knows of: of an attempt that was
            sent and not answered, or of an answer that broke off. An error status in place of an answer costs nothing.
    """

    error_type = "claude_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        counts: bool = False,
        may_have_cost: bool = False,
    ) -> None:
        super().__init__(message if request_id is None else f"{message} (request id {request_id})")
        self.status = status
        self.request_id = request_id
        self.counts = counts
        self.may_have_cost = may_have_cost


class ClaudeNotConfigured(ClaudeFailure):
    """There is no API key."""

    error_type = "claude_not_configured"

    def __init__(self) -> None:
        super().__init__(
            "no Anthropic API key is configured: set ANTHROPIC_API_KEY in the environment of tfo-mcp and restart it"
        )


def meaning_of(error_type: str) -> str | None:
    """What an `error_type` of a tool's failure stands for, in a sentence; None where it is none of ours."""
    kinds: list[type[ToolFailure]] = [ToolFailure]
    for kind in kinds:
        if kind.error_type == error_type:
            return kind.__doc__ and kind.__doc__.partition("\n")[0]
        kinds += kind.__subclasses__()
    return None
