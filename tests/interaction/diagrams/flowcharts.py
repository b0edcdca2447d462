"""The flowcharts, from the whole system to a single step."""

from __future__ import annotations

from interaction.arrow import arrows

OVERVIEW = arrows(
    "Overview",
    ("DFD → FLOW", "how data moves", "messages.path"),
    (
        "STATE → LIFECYCLE",
        "how state changes",
        "session.states",
        "conversation.states",
        "execution.states",
        "telemetry.client.states",
    ),
    ("SEQ → INTERACTION", "who speaks when", "session.flow"),
)

CONTEXT = arrows(
    "Context Diagram",
    ("CLIENT → SYSTEM", "requests", "lifecycle.client.sdk", "messages.answer.one"),
    ("SYSTEM → CLIENT", "answers", "lifecycle.client.sdk", "messages.answer.one"),
    ("SYSTEM → CLAUDE", "requests", "claude.request", "claude.headers"),
    ("CLAUDE → SYSTEM", "answers", "claude.response"),
    ("SYSTEM → OTEL", "telemetry", "telemetry.collector", "telemetry.serialized", "session.flushed"),
)

SYSTEM = arrows(
    "System Overview",
    ("C1 → P1", "requests of Claude Code", "lifecycle.client.any"),
    ("C2 → P1", "requests of an editor", "lifecycle.client.any"),
    ("C3 → P1", "requests of any other client", "lifecycle.client.any", "lifecycle.client.sdk"),
    ("P1 → P3", "a request", "messages.path"),
    ("P3 → A1", "a command", "messages.path"),
    ("P3 → A2", "a query", "tools.list.shape"),
    ("A1 → D1", "a command moves its session", "session.flow"),
    ("A1 → D2", "a command moves its conversation", "conversation.continued"),
    ("A1 → D3", "a command runs its tool", "execution.order"),
    ("A2 → I2", "a query reads what is stored", "resources.read.conversation"),
    ("D3 → I1", "a tool asks Claude", "conversation.result", "claude.span"),
    ("I1 → CLAUDE", "the API is called", "claude.headers", "claude.request"),
    ("I3 → OTLP", "telemetry is exported", "telemetry.serialized", "telemetry.collector"),
    ("A1 → A3", "a command publishes what happened", "session.flow", "execution.order"),
    ("D1 → I2", "a session is stored", "session.stored"),
    ("D2 → I2", "a conversation is stored", "conversation.stored", "conversation.survives"),
    ("A1 → P2", "a command's result", "tools.call.result"),
    ("A2 → P2", "a query's result", "tools.list.shape"),
    ("P2 → C1", "answers to Claude Code", "lifecycle.client.any"),
    ("P2 → C2", "answers to an editor", "lifecycle.client.any"),
    ("P2 → C3", "answers to any other client", "lifecycle.client.any", "lifecycle.client.sdk"),
)

REQUEST = arrows(
    "Request Processing",
    ("REQ → P1", "bytes become a line, and JSON", "messages.path", "messages.error.parse", "stdio.lines"),
    ("P1 → P2", "JSON becomes a message with a method", "messages.error.invalid-request", "messages.error.order"),
    ("P2 → P3", "and with params", "messages.error.invalid-request"),
    ("P3 → R1", "the method is looked up", "messages.error.method-not-found", "messages.error.order"),
    ("R1 → R2", "and its handler found", "messages.path"),
    ("R2 → H1", "the params are validated", "messages.error.invalid-params", "session.guard"),
    ("H1 → H2", "the handler runs", "messages.error.order", "messages.path"),
    ("H2 → H3", "its result takes the protocol's shape", "messages.path", "tools.call.result"),
    ("H3 → RES", "the answer", "messages.answer.one"),
)

TOOL = arrows(
    "Tool Execution",
    ("CALL → V1", "the call's params", "messages.error.invalid-params"),
    ("V1 → V2", "the name is looked up", "tools.call.unknown-tool", "execution.unknown"),
    ("V2 → V3", "the arguments meet the tool's schema", "tools.call.invalid-arguments", "execution.order"),
    ("V3 → TE1", "arguments that fit get a span", "execution.order", "telemetry.tool.span"),
    ("TE1 → E1", "the handler's context stands in that span", "execution.context", "telemetry.libraries"),
    ("E1 → E2", "the handler runs", "execution.order", "execution.mode"),
    ("E2 → E3", "what it gives is taken", "execution.result-checked", "execution.completed"),
    ("E3 → T1", "text and structured content", "tools.call.result", "tools.call.structured"),
    ("T1 → T2", "failures become results", "tools.call.failure", "tools.call.fault", "tools.call.timeout"),
    ("T2 → T3", "with `isError`", "tools.call.failure", "tools.call.result"),
    ("T3 → TE2", "the call is counted", "execution.order", "telemetry.tool.counted"),
    ("TE2 → TE3", "and told of", "execution.order", "telemetry.tool.logged"),
    ("TE3 → RES", "the result", "execution.order", "tools.call.result"),
)

CLAUDE = arrows(
    "Claude Conversation",
    ("MSG → P1", "a message finds its conversation", "conversation.continued", "conversation.unknown"),
    ("P1 → P2", "its history is the request's", "conversation.continued", "claude.request"),
    ("P2 → P3", "with the system prompt", "conversation.system-prompt"),
    ("P3 → P4", "and the model", "conversation.model"),
    ("P4 → A1", "the request is made", "claude.request"),
    ("A1 → A2", "and sent", "claude.headers", "claude.span"),
    ("A2 → A3", "the answer comes", "claude.response", "claude.error.broken"),
    ("A3 → R1", "its content is taken", "claude.response"),
    ("R1 → R2", "the tools it asks for run", "conversation.tools", "conversation.tools.offered"),
    ("R2 → R3", "every step is appended", "conversation.stored"),
    ("R3 → RES", "the answer in words", "conversation.result", "conversation.turn"),
)

TELEMETRY = arrows(
    "Telemetry Flow",
    ("EVENT → C1", "an operation becomes a span and counts", "telemetry.request.recorded", "telemetry.tool.counted"),
    ("C1 → C2", "with its attributes", "telemetry.attributes"),
    ("C2 → C3", "and its time", "telemetry.timestamps"),
    ("C3 → P1", "it is validated", "telemetry.validated"),
    ("P1 → P2", "gets its resource", "telemetry.context"),
    ("P2 → P3", "and company", "telemetry.batched", "telemetry.bounded"),
    ("P3 → E1", "a batch is encoded", "telemetry.serialized"),
    ("E1 → E2", "compressed", "telemetry.compressed"),
    ("E2 → E3", "and sent", "telemetry.sent", "telemetry.retried"),
    ("E3 → OTLP", "until the collector has it", "telemetry.collector", "telemetry.retried"),
)
