"""Tools as clients see them, and their execution as the diagrams draw it."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

TOOLS: Sequence[Behaviour] = (
    Behaviour(
        "tools.list.shape",
        "MCP 2025-11-25 server/tools; SEP-986",
        "`tools/list` gives each tool a unique name of allowed characters, a title, a description and its schemas.",
    ),
    Behaviour(
        "tools.list.schemas",
        "MCP 2025-11-25 server/tools; SEP-1613",
        "Input and output schemas are valid JSON Schema 2020-12.",
    ),
    Behaviour(
        "tools.list.annotations",
        "MCP 2025-11-25 server/tools",
        "Every tool says whether it only reads, destroys, may be repeated, and reaches out; none says both first two.",
    ),
    Behaviour(
        "tools.list.stable",
        "MCP 2025-11-25 server/tools",
        "The list is the same, in the same order, as often as it is asked for, and `listChanged` is not promised.",
    ),
    Behaviour(
        "tools.list.cursor",
        "MCP 2025-11-25 server/utilities/pagination",
        "A cursor that was never given out is -32602.",
    ),
    Behaviour(
        "tools.call.result",
        "MCP 2025-11-25 server/tools; diagrams: Tool Execution",
        "A call that succeeds is answered with text content and `isError: false`.",
    ),
    Behaviour(
        "tools.call.structured",
        "MCP 2025-11-25 server/tools",
        "A tool with an output schema gives structured content that fits it, and text beside it.",
    ),
    Behaviour(
        "tools.call.no-arguments",
        "MCP 2025-11-25 server/tools",
        "Arguments may be left out where the tool needs none.",
    ),
    Behaviour(
        "tools.call.unknown-tool",
        "MCP 2025-11-25 server/tools",
        "A tool that nobody knows is -32602, naming it.",
    ),
    Behaviour(
        "tools.call.invalid-arguments",
        "SEP-1303; diagrams: Tool Execution State Machine",
        "Arguments against the schema are a result with `isError: true` that says which field and why.",
    ),
    Behaviour(
        "tools.call.failure",
        "MCP 2025-11-25 server/tools; diagrams: Tool Execution State Machine",
        "What a tool cannot do is a result with `isError: true` and a sentence that the model can act on.",
    ),
    Behaviour(
        "tools.call.result-too-large",
        "docs/reference/errors.md",
        "A result beyond `mcp.max_result_size` is one sentence instead, and hinders nobody.",
    ),
    Behaviour(
        "tools.call.fault",
        "MCP 2025-11-25 server/tools",
        "A tool that raises what nobody foresaw is such a result too, with an error id and not with its text.",
    ),
    Behaviour(
        "tools.call.timeout",
        "MCP 2025-11-25 basic/lifecycle; diagrams: Tool Execution State Machine",
        "A tool that takes too long is stopped, and its call answered with a result that says so.",
    ),
    Behaviour(
        "tools.access.roots",
        "MCP 2025-11-25 server/tools; SECURITY.md",
        "File tools reach what is inside their roots; no spelling of a path and no link leads outside.",
    ),
    Behaviour(
        "tools.access.own-files",
        "SECURITY.md",
        "The server's own configuration and state are refused to file tools, whatever they are called.",
    ),
    Behaviour(
        "tools.acting.write-file",
        "MCP 2025-11-25 server/tools; SECURITY.md",
        "`write_file` replaces a file as a whole or not at all, and inside the roots only.",
    ),
    Behaviour(
        "tools.acting.execute-command",
        "MCP 2025-11-25 server/tools; SECURITY.md",
        "`execute_command` runs the programs that are allowed, and nothing else by any spelling, option or variable.",
    ),
    Behaviour(
        "tools.acting.processes",
        "MCP 2025-11-25 server/tools",
        "No process that a command started survives it or the server; without a sandbox, as long as it keeps its mark.",
    ),
    Behaviour(
        "tools.acting.secrets",
        "SECURITY.md",
        "No key of the server's is in a command's environment, or in what is told of it.",
    ),
    Behaviour(
        "tools.acting.bounded",
        "MCP 2025-11-25 server/tools",
        "What a command says is given within a bound, whatever its bytes, and hinders nobody.",
    ),
    Behaviour(
        "tools.acting.intent",
        "MCP 2025-11-25 server/tools",
        "A tool that is not read-only runs only once that it was called has been committed; its outcome follows.",
    ),
    Behaviour(
        "tools.list.changed",
        "MCP 2025-11-25 server/tools",
        "A change of the tools is notified.",
        gap="optional; the list does not change while the server runs",
    ),
    Behaviour(
        "tools.list.icons",
        "SEP-973",
        "Tools have icons.",
        gap="optional; there are none",
    ),
    Behaviour(
        "tools.call.structured-as-text",
        "MCP 2025-11-25 server/tools",
        "Structured content is repeated in a text block, serialized as JSON.",
        gap="not wanted: the text says the same in words, for a model to read and in fewer tokens",
    ),
    Behaviour(
        "tools.call.audience",
        "MCP 2025-11-25 server/tools",
        "Content says for whom it is and how important.",
        gap="optional; all of it is for both",
    ),
    Behaviour(
        "tools.call.other-content",
        "MCP 2025-11-25 server/tools",
        "A result holds images, audio, links to resources or embedded resources.",
        gap="optional; the server's tools give text and structured content",
    ),
)

EXECUTION: Sequence[Behaviour] = (
    Behaviour(
        "execution.states",
        "diagrams: Tool Execution State Machine; diagrams: Overview",
        "A tool execution takes the edges that are drawn, those for unknown tools and cancellation, and no others.",
    ),
    Behaviour(
        "execution.received",
        "diagrams: Tool Execution State Machine",
        "A tool execution begins at Received.",
    ),
    Behaviour(
        "execution.order",
        "diagrams: Tool Execution",
        "A call is found, validated, given its span, run, measured and told of, in this order, and then answered.",
    ),
    Behaviour(
        "execution.unknown",
        "diagrams: Tool Execution",
        "An unknown tool is recorded as invalid, under no name that a client invented.",
    ),
    Behaviour(
        "execution.invalid",
        "diagrams: Tool Execution State Machine",
        "Arguments that do not fit never reach the handler; the call is recorded as invalid.",
    ),
    Behaviour(
        "execution.completed",
        "diagrams: Tool Execution State Machine",
        "A handler that succeeds ends the call as completed, in whatever mode it runs.",
    ),
    Behaviour(
        "execution.failed",
        "diagrams: Tool Execution State Machine",
        "A handler that fails, foreseen or not, ends the call as failed, with its error's type.",
    ),
    Behaviour(
        "execution.timed-out",
        "diagrams: Tool Execution State Machine",
        "A handler over its time limit ends the call as timed out, and is stopped.",
    ),
    Behaviour(
        "execution.cancelled",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "A call that is cancelled is recorded as cancelled, and is no error.",
    ),
    Behaviour(
        "execution.context",
        "diagrams: Tool Execution",
        "Inside a handler its span is the current one, and what it sends is part of its request.",
    ),
    Behaviour(
        "execution.result-checked",
        "diagrams: Tool Execution",
        "What a handler gives is checked to be a result; anything else is its own fault.",
    ),
    Behaviour(
        "execution.mode",
        "diagrams: Tool Execution",
        "A handler runs where its mode says: inline, as a task or in a thread.",
    ),
)
