"""JSON-RPC and the utilities that go with any request: errors, ids, `_meta`, ping, progress, cancellation."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

ERRORS: Sequence[Behaviour] = (
    Behaviour(
        "messages.error.parse",
        "JSON-RPC 2.0 §5; diagrams: Error Handling Flow",
        "What is no JSON, no UTF-8 or nested too deep is -32700 with the id null.",
    ),
    Behaviour(
        "messages.error.invalid-request",
        "JSON-RPC 2.0 §5; diagrams: Error Handling Flow",
        "What is JSON but no request is -32600, with its id where that can be read.",
    ),
    Behaviour(
        "messages.error.method-not-found",
        "JSON-RPC 2.0 §5; diagrams: Error Handling Flow",
        "A method that nobody knows is -32601, even before `initialize`.",
    ),
    Behaviour(
        "messages.error.invalid-params",
        "JSON-RPC 2.0 §5; diagrams: Error Handling Flow",
        "Params that do not fit the method are -32602, naming what is wrong.",
    ),
    Behaviour(
        "messages.error.internal",
        "JSON-RPC 2.0 §5; diagrams: Error Handling Flow",
        "What nobody foresaw is -32603 with an error id that the log has too, and never its text.",
    ),
    Behaviour(
        "messages.error.order",
        "diagrams: Error Handling Flow",
        "Of several mistakes in one message the first on its way is told: JSON, request, method, params, handler.",
    ),
    Behaviour(
        "messages.error.closing",
        "docs/reference/errors.md",
        "A request while the server closes is -32000, and so is one that the end has cut.",
    ),
    Behaviour(
        "messages.error.serves-on",
        "docs/reference/errors.md",
        "After any error the connection serves the next request.",
    ),
)

MESSAGES: Sequence[Behaviour] = (
    Behaviour(
        "messages.answer.one",
        "MCP 2025-11-25 basic; diagrams: Request Processing",
        "Every accepted request that is not cancelled gets exactly one answer, under its own id.",
    ),
    Behaviour(
        "messages.answer.side-by-side",
        "MCP 2025-11-25 basic",
        "Requests run side by side: a slow one delays no other.",
    ),
    Behaviour(
        "messages.id.kinds",
        "MCP 2025-11-25 basic",
        "Every string and every integer is an id, and comes back as it was; null, fractions and bools are none.",
    ),
    Behaviour(
        "messages.id.in-flight",
        "MCP 2025-11-25 basic",
        "An id that is still in flight is refused, and the request that has it goes on.",
    ),
    Behaviour(
        "messages.notification.unanswered",
        "JSON-RPC 2.0 §4; MCP 2025-11-25 basic",
        "A notification is never answered, whether it is known or not, and whatever its params say.",
    ),
    Behaviour(
        "messages.response.ignored",
        "JSON-RPC 2.0 §5",
        "An answer to nothing that was asked is ignored.",
    ),
    Behaviour(
        "messages.meta.ignored",
        "MCP 2025-11-25 basic",
        "Keys of `_meta` that the server does not know change nothing.",
    ),
    Behaviour(
        "messages.params.unknown-members",
        "MCP 2025-11-25 basic",
        "Members of the params that the method does not know change nothing.",
    ),
    Behaviour(
        "messages.batch.refused",
        "MCP 2025-06-18 changelog",
        "A batch is one -32600; none of its messages is served.",
    ),
    Behaviour(
        "messages.batch.served",
        "MCP 2025-03-26 basic",
        "In the one revision that has batches, a batch is received.",
        gap="batches came with 2025-03-26 and went with 2025-06-18; they are refused in every revision",
    ),
    Behaviour(
        "messages.size.bounded",
        "docs/reference/errors.md",
        "A line over `mcp.max_message_size` is -32600 and is skipped, never held; one at the limit is served.",
    ),
    Behaviour(
        "messages.same-as-sdk",
        "docs/decisions/0001-own-streams-around-the-sdks-kernel.md",
        "Any message is answered as the official SDK answers it, wherever the errors' table does not say otherwise.",
    ),
    Behaviour(
        "messages.path",
        "diagrams: Overview; diagrams: Request Processing",
        "A call goes from the bytes to the answer through eight files, each of which changes it once, in order.",
    ),
)

UTILITIES: Sequence[Behaviour] = (
    Behaviour(
        "ping.result",
        "MCP 2025-11-25 basic/utilities/ping",
        "`ping` is answered at once with an empty result, in every revision with a handshake.",
    ),
    Behaviour(
        "progress.token",
        "MCP 2025-11-25 basic/utilities/progress",
        "Progress is told to a client that sent a token, string or integer, under that token and before the answer.",
    ),
    Behaviour(
        "progress.unasked",
        "MCP 2025-11-25 basic/utilities/progress",
        "A client that sent no token is told no progress.",
    ),
    Behaviour(
        "progress.ends",
        "MCP 2025-11-25 basic/utilities/progress",
        "After the answer no progress is told.",
    ),
    Behaviour(
        "progress.increases",
        "MCP 2025-11-25 basic/utilities/progress",
        "Progress increases with every notification.",
    ),
    Behaviour(
        "cancellation.no-answer",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A cancelled request is never answered, its work ends, and what it held is free.",
    ),
    Behaviour(
        "cancellation.upstream",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "Cancelling a turn with Claude closes the connection to Claude's API.",
    ),
    Behaviour(
        "cancellation.id-free",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "The very next line may use the id of the request that was cancelled.",
    ),
    Behaviour(
        "cancellation.ignored",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A cancellation of nothing, or one that is malformed, is ignored.",
    ),
    Behaviour(
        "cancellation.late",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A cancellation that comes after the answer is ignored.",
    ),
    Behaviour(
        "cancellation.shutdown",
        "docs/reference/errors.md",
        "`shutdown` cannot be cancelled.",
    ),
)

TRANSPORTS: Sequence[Behaviour] = (
    Behaviour(
        "stdio.lines",
        "MCP 2025-11-25 basic/transports; diagrams: Request Processing",
        "Each line of UTF-8 is one message, however its bytes are cut; the last one needs no line's end.",
    ),
    Behaviour(
        "stdio.lines.out",
        "MCP 2025-11-25 basic/transports",
        "Every message is written as one line, whatever line breaks stand in its contents.",
    ),
    Behaviour(
        "stdio.lines.together",
        "benchmarks/README.md",
        "Answers that are ready together go out together.",
    ),
    Behaviour(
        "stdio.garbage",
        "benchmarks/README.md",
        "Garbage is collected while it serves, but not looked for in what was loaded.",
    ),
    Behaviour(
        "stdio.only-protocol",
        "MCP 2025-11-25 basic/transports",
        "Nothing but messages is written to stdout, whatever tools and their children print.",
    ),
    Behaviour(
        "stdio.lines.kept",
        "MCP 2025-11-25 basic/transports",
        "No tool and no child of one takes a message away that was meant for the server.",
    ),
    Behaviour(
        "stdio.stderr",
        "MCP 2025-11-25 basic/transports",
        "Logs go to stderr; a stderr that is closed or that nobody reads stops nothing.",
    ),
    Behaviour(
        "stdio.streams",
        "docs/decisions/0001-own-streams-around-the-sdks-kernel.md",
        "Pipes, sockets, files, terminals and other devices serve alike, one socket for both directions too.",
    ),
    Behaviour(
        "stdio.terminal",
        "README.md",
        "Who starts it by hand is told what it is and how to leave, and finds the terminal as it was.",
    ),
    Behaviour(
        "stdio.broken-streams",
        "MCP 2025-11-25 basic/transports",
        "A stream that is closed, full or left by its reader is an end; where it is a failure, the log says why.",
    ),
    Behaviour(
        "stdio.backpressure",
        "README.md",
        "A client that does not read is not read from until it does; memory stays bounded meanwhile.",
    ),
    Behaviour(
        "stdio.bounded",
        "MCP 2025-11-25 server/tools",
        "So many requests run at a time and no more; what one message costs has a bound.",
    ),
    Behaviour(
        "stdio.end.input",
        "MCP 2025-11-25 basic/lifecycle",
        "When the client closes its end, what it sent is answered and the process exits with 0, in time.",
    ),
    Behaviour(
        "stdio.end.signal",
        "MCP 2025-11-25 basic/lifecycle",
        "SIGTERM and SIGINT end the process as cleanly, at any moment of its life.",
    ),
    Behaviour(
        "stdio.end.bounded",
        "README.md",
        "No tool, client, collector, database or reader of stderr holds the end up beyond `server.shutdown_timeout`.",
    ),
    Behaviour(
        "stdio.end.descriptors",
        "README.md",
        "The end closes no descriptor that somebody still uses, and none twice.",
    ),
    Behaviour(
        "http.served",
        "MCP 2025-11-25 basic/transports",
        "The server is served over Streamable HTTP.",
        gap="arrives with the HTTP transport",
    ),
    Behaviour(
        "http.authorization",
        "MCP 2025-11-25 basic/authorization",
        "An HTTP server is protected by authorization.",
        gap="arrives with the HTTP transport; optional, and stdio takes its credentials from the environment",
    ),
)
