"""Sessions and conversations: their state machines, what they publish, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

SESSIONS: Sequence[Behaviour] = (
    Behaviour(
        "session.states",
        "diagrams: Session State Machine; diagrams: Overview",
        "A session takes the edges that are drawn, those to Closing from before Ready, and no others.",
    ),
    Behaviour(
        "session.failed",
        "diagrams: Session State Machine",
        "An initialization that fails is told with its reason and leads by Error to Closing.",
    ),
    Behaviour(
        "session.ready.any-method",
        "diagrams: Session State Machine",
        "In Ready every method that is served is answered, one request after another.",
    ),
    Behaviour(
        "session.ready.processing",
        "diagrams: Session State Machine",
        "Ready is Idle until a request comes and again when the last one is answered; those under way are counted.",
    ),
    Behaviour(
        "session.guard",
        "diagrams: Request Processing",
        "Before `initialize` and from Closing on no handler runs, and the refusal is recorded.",
    ),
    Behaviour(
        "session.closing",
        "diagrams: Session State Machine; diagrams: Complete MCP Session Flow",
        "`shutdown` lets requests under way end, refuses others, is acknowledged last of all, and the process exits.",
    ),
    Behaviour(
        "session.flow",
        "diagrams: Complete MCP Session Flow",
        "From `initialize` to `shutdown` events and spans come in the order that is drawn, and metrics count them.",
    ),
    Behaviour(
        "session.events",
        "diagrams: Complete MCP Session Flow",
        "Created, initialized, failed and closed are published at their transitions and at no other, saying whose.",
    ),
    Behaviour(
        "session.events.first-request",
        "diagrams: Complete MCP Session Flow",
        "That a session became ready by its first request is published at once.",
    ),
    Behaviour(
        "session.measured",
        "diagrams: Complete MCP Session Flow; OpenTelemetry semantic conventions",
        "Sessions count in and out, and each leaves its duration.",
    ),
    Behaviour(
        "session.flushed",
        "diagrams: Complete MCP Session Flow",
        "What was recorded has been sent when the process is gone.",
    ),
    Behaviour(
        "session.stored",
        "diagrams: System Overview",
        "A session is stored in its newest state together with its events, behind the answers.",
    ),
    Behaviour(
        "session.subscribers",
        "diagrams: System Overview",
        "Events reach their subscribers in order, and one that fails harms no other.",
    ),
)

CONVERSATIONS: Sequence[Behaviour] = (
    Behaviour(
        "conversation.states",
        "diagrams: Conversation State Machine; diagrams: Overview",
        "A conversation takes the edges that are drawn, those for cancellation, recovery and closing, and no others.",
    ),
    Behaviour(
        "conversation.events",
        "diagrams: Conversation State Machine",
        "Created, each message, each failed request and closed are published at their transitions and at no other.",
    ),
    Behaviour(
        "conversation.created",
        "diagrams: Conversation State Machine",
        "A message without a conversation starts one, whose id comes with the answer.",
    ),
    Behaviour(
        "conversation.continued",
        "diagrams: Claude Conversation",
        "A message with that id continues the conversation: all that was said goes to Claude again, in order.",
    ),
    Behaviour(
        "conversation.unknown",
        "diagrams: Claude Conversation",
        "A conversation that is not there, or is somebody else's, is said not to be there.",
    ),
    Behaviour(
        "conversation.system-prompt",
        "diagrams: Claude Conversation",
        "A system prompt that is given goes with every request from then on.",
    ),
    Behaviour(
        "conversation.model",
        "diagrams: Claude Conversation",
        "A model that is given stays, unless Claude's API does not know it; without one the default is used.",
    ),
    Behaviour(
        "conversation.turn",
        "diagrams: Conversation State Machine; diagrams: Claude Conversation",
        "A turn ends with Claude's answer, and the turns of one conversation follow each other.",
    ),
    Behaviour(
        "conversation.tools",
        "diagrams: Claude Conversation",
        "The tools that Claude asks for run, and their results go back to it, until it answers in words.",
    ),
    Behaviour(
        "conversation.tools.offered",
        "diagrams: Claude Conversation",
        "Claude is offered read-only tools, and runs no other.",
    ),
    Behaviour(
        "conversation.stored",
        "diagrams: Claude Conversation; diagrams: System Overview",
        "Every step of a turn is committed with its events before the next one begins.",
    ),
    Behaviour(
        "conversation.survives",
        "README.md",
        "A conversation goes on after the server was killed, between two turns and in one.",
    ),
    Behaviour(
        "conversation.survives.anywhere",
        "README.md",
        "A server that is killed at any step of a turn leaves a conversation that a restart brings to the same end; "
        "no message is lost or said twice, and no tool that must not is run twice.",
    ),
    Behaviour(
        "conversation.too-long",
        "docs/reference/conversations.md",
        "What is longer than the model can take is refused before it is stored, and makes no conversation unusable.",
    ),
    Behaviour(
        "conversation.budget",
        "docs/reference/conversations.md",
        "A budget is never passed: what would take more is refused before it is sent.",
    ),
    Behaviour(
        "conversation.cancelled",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A turn that is cancelled or takes too long keeps its message, and the conversation goes on.",
    ),
    Behaviour(
        "conversation.error",
        "diagrams: Conversation State Machine",
        "A request to Claude that fails keeps the message and names the conversation in which to try again.",
    ),
    Behaviour(
        "conversation.retry",
        "diagrams: Conversation State Machine",
        "The next message after a failure is the retry; when it succeeds the failures are forgotten.",
    ),
    Behaviour(
        "conversation.max-retries",
        "diagrams: Conversation State Machine",
        "So many failures in a row close it for good; an expired key never does.",
    ),
    Behaviour(
        "conversation.closed",
        "diagrams: Conversation State Machine",
        "A closed conversation takes no message, and can still be read; one that waits for Claude cannot be closed.",
    ),
    Behaviour(
        "conversation.fenced",
        "docs/decisions/0002-turns-are-fenced-before-they-are-locked.md",
        "Who is overtaken by another process is told so and overwrites nothing.",
    ),
    Behaviour(
        "conversation.line",
        "docs/decisions/0004-who-works-on-a-conversation-holds-a-file-lock.md",
        "Messages to one conversation are answered one after the other, in the order in which they were accepted, "
        "whichever servers with one storage folder they were sent to.",
    ),
    Behaviour(
        "conversation.line.cancelled",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A message that is cancelled while it waits is never said, and those behind it are.",
    ),
    Behaviour(
        "conversation.line.killed",
        "docs/decisions/0004-who-works-on-a-conversation-holds-a-file-lock.md",
        "A server that dies keeps nobody waiting: its turn is continued, what it had accepted is said in its place.",
    ),
    Behaviour(
        "conversation.idempotent.servers",
        "docs/decisions/0004-who-works-on-a-conversation-holds-a-file-lock.md",
        "A message with a key that several servers get is said once, and each of them gives the same answer.",
    ),
    Behaviour(
        "conversation.result",
        "diagrams: Claude Conversation; MCP 2025-11-25 server/tools",
        "The tool's result has Claude's text with the id to continue, and usage and stop reason as structured content.",
    ),
)

CLAUDE: Sequence[Behaviour] = (
    Behaviour(
        "claude.request",
        "diagrams: Claude API Integration Flow; diagrams: Claude Conversation",
        "A request carries history, system prompt, model, limit, tools and cache mark, and no sampling parameter.",
    ),
    Behaviour(
        "claude.headers",
        "diagrams: Claude API Integration Flow",
        "A request is a POST to `/v1/messages` with version and key, and with no trace context.",
    ),
    Behaviour(
        "claude.response",
        "diagrams: Claude API Integration Flow; diagrams: Claude Conversation",
        "Text, tool calls, stop reason, model and token counts come back as they were sent.",
    ),
    Behaviour(
        "claude.retry.rate-limit",
        "diagrams: Claude API Integration Flow",
        "After a 429 it waits, as long as it is told to, and asks again; nobody sees it.",
    ),
    Behaviour(
        "claude.retry.server-error",
        "diagrams: Claude API Integration Flow",
        "After a 5xx it waits and asks again; nobody sees it.",
    ),
    Behaviour(
        "claude.retry.bounded",
        "diagrams: Claude API Integration Flow",
        "It asks `claude.max_retries` times again and no more, and not at all when told to wait for too long.",
    ),
    Behaviour(
        "claude.error.client",
        "diagrams: Claude API Integration Flow",
        "After a 4xx that will not pass it asks no more: the error is one clear sentence that never repeats the key.",
    ),
    Behaviour(
        "claude.error.recorded",
        "diagrams: Claude API Integration Flow",
        "A request that failed is recorded as failed, with its status, and never with its text.",
    ),
    Behaviour(
        "claude.error.broken",
        "diagrams: Claude API Integration Flow",
        "An answer that breaks off, falls silent or makes no sense is a failure, and never half an answer.",
    ),
    Behaviour(
        "claude.span",
        "diagrams: Claude API Integration Flow; OpenTelemetry semantic conventions",
        "Each request is a `claude.request` span below its turn, with the Claude SDK's own span below it.",
    ),
    Behaviour(
        "claude.attempts",
        "diagrams: Claude API Integration Flow; OpenTelemetry semantic conventions",
        "Each attempt, the first as its retries, is an event of the `claude.request` span and a count in the metrics.",
    ),
    Behaviour(
        "claude.measured",
        "diagrams: Claude API Integration Flow; OpenTelemetry semantic conventions",
        "Duration and tokens of each request are counted under the model that answered.",
    ),
    Behaviour(
        "claude.cancelled",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A request that is cancelled closes its connection.",
    ),
    Behaviour(
        "claude.no-key",
        "README.md",
        "Without a key nothing is sent anywhere, and the answer says how to set one.",
    ),
)
