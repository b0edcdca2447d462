"""What the server records of itself, and how that reaches a collector."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

TELEMETRY: Sequence[Behaviour] = (
    Behaviour(
        "telemetry.request.recorded",
        "diagrams: Telemetry Recording Flow; OpenTelemetry semantic conventions",
        "Every request of a known method and shape is one span with method, id, revision and session, however it ends.",
    ),
    Behaviour(
        "telemetry.request.trace-context",
        "SEP-414",
        "A request whose `_meta` has a `traceparent` is recorded below the client's own span.",
    ),
    Behaviour(
        "telemetry.rejected.counted",
        "diagrams: Error Handling Flow",
        "What never becomes a request is counted by its reason.",
    ),
    Behaviour(
        "telemetry.tool.span",
        "diagrams: Telemetry Recording Flow; diagrams: Tool Execution",
        "A tool call is `tools.execute` below `tools/call {tool}`, in one trace, and says how it ended.",
    ),
    Behaviour(
        "telemetry.tool.event",
        "diagrams: Telemetry Recording Flow",
        "The span of a tool call has the event `completed`, or `error` where it failed.",
    ),
    Behaviour(
        "telemetry.tool.counted",
        "diagrams: Telemetry Recording Flow",
        "A call counts in `mcp.tools.calls` and `mcp.tools.duration`, and one that failed in `mcp.tools.errors` too.",
    ),
    Behaviour(
        "telemetry.tool.logged",
        "diagrams: Tool Execution",
        "A call that has ended is an event in the log, with tool, outcome and duration, and without contents.",
    ),
    Behaviour(
        "telemetry.attributes",
        "diagrams: Telemetry Flow",
        "A span arrives with its own attributes, and those of a metric are bounded.",
    ),
    Behaviour(
        "telemetry.conventions",
        "OpenTelemetry semantic conventions",
        "Names, units and bounds are those of the semantic conventions for MCP and GenAI, or this server's own.",
    ),
    Behaviour(
        "telemetry.timestamps",
        "diagrams: Telemetry Flow",
        "A span has the time of its start and a duration, which no clock that jumps makes negative.",
    ),
    Behaviour(
        "telemetry.validated",
        "diagrams: Telemetry Flow",
        "What a span cannot hold is mended or cut, and one that cannot be sent costs no other its export.",
    ),
    Behaviour(
        "telemetry.context",
        "diagrams: Telemetry Flow",
        "Everything arrives with the resource that names service, version, instance and environment.",
    ),
    Behaviour(
        "telemetry.batched",
        "diagrams: Telemetry Flow",
        "Spans are exported together, after a short delay and never more than a batch at a time.",
    ),
    Behaviour(
        "telemetry.bounded",
        "diagrams: Telemetry Flow",
        "When there is too much, spans go and are counted; counters count every call.",
    ),
    Behaviour(
        "telemetry.sampled",
        "docs/how-to/choose-what-is-exported.md",
        "Where it is limited, so many requests a second are exported, each with all its spans, and the others counted.",
    ),
    Behaviour(
        "telemetry.sampled.kept",
        "docs/how-to/choose-what-is-exported.md",
        "What failed, or was slower than the 99th percentile of its name, is exported whatever the limit.",
    ),
    Behaviour(
        "telemetry.sampled.bounded",
        "docs/how-to/choose-what-is-exported.md",
        "What waits for the end of its request is bounded in number and time, and exported then.",
    ),
    Behaviour(
        "contents.off",
        "docs/how-to/choose-what-is-exported.md",
        "What people, tools and Claude said is in no signal and no file of telemetry.",
    ),
    Behaviour(
        "contents.captured",
        "docs/how-to/choose-what-is-exported.md",
        "With `telemetry.capture_content`, arguments and results stand on a tool's span.",
    ),
    Behaviour(
        "contents.messages",
        "docs/how-to/choose-what-is-exported.md",
        "What is newly said to Claude, and his answer, stand on his request's span in the conventions' shapes.",
    ),
    Behaviour(
        "contents.redacted",
        "docs/how-to/choose-what-is-exported.md",
        "Of contents, secrets and what the user's patterns match are taken out before anything is written.",
    ),
    Behaviour(
        "contents.bounded",
        "docs/how-to/choose-what-is-exported.md",
        "Contents are cut to length, and cost no operation anything, whatever they are.",
    ),
    Behaviour(
        "telemetry.serialized",
        "diagrams: Telemetry Flow; OpenTelemetry protocol",
        "Spans and metrics arrive whole, over gRPC and over HTTP.",
    ),
    Behaviour(
        "telemetry.compressed",
        "diagrams: Telemetry Flow",
        "What is sent is compressed if so set; a collector that cannot read that gets it plain from then on.",
    ),
    Behaviour(
        "telemetry.sent",
        "diagrams: Telemetry Flow; diagrams: Context Diagram",
        "Every export carries the configured headers, and a complete key goes to the authenticated path.",
    ),
    Behaviour(
        "telemetry.retried",
        "diagrams: Telemetry Flow; OpenTelemetry protocol",
        "A failure that may pass is tried again and loses nothing; what is refused for good is kept apart, counted and "
        "logged.",
    ),
    Behaviour(
        "telemetry.truth",
        "diagrams: Telemetry Recording Flow",
        "What counters and traces say is what was asked and how it was answered: every request once.",
    ),
    Behaviour(
        "telemetry.spooled",
        "diagrams: Telemetry Flow",
        "What was committed to the spool arrives, whatever ends the server or keeps the collector from taking it.",
    ),
    Behaviour(
        "telemetry.recorder",
        "README.md",
        "Every operation is kept on this machine, by itself and counted by the minute, whatever else is dropped.",
    ),
    Behaviour(
        "telemetry.recorder-off",
        "docs/reference/settings.md",
        "Without a recorder nothing is kept on this machine, and nothing is offered that would ask it.",
    ),
    Behaviour(
        "telemetry.summary",
        "docs/reference/telemetry.md",
        "Calls, errors, percentiles and tokens of a window of time are told per method, tool and model, "
        "across restarts.",
    ),
    Behaviour(
        "telemetry.reading-is-not-counted",
        "docs/reference/telemetry.md",
        "What asks for telemetry is in no summary of it.",
    ),
    Behaviour(
        "telemetry.slow",
        "docs/reference/telemetry.md",
        "The slowest calls of a window of time are found, with the traces that show why.",
    ),
    Behaviour(
        "telemetry.health",
        "docs/reference/telemetry.md",
        "How telemetry itself is doing is a resource.",
    ),
    Behaviour(
        "telemetry.failures",
        "docs/reference/telemetry.md",
        "Of a call that failed it is told what was called, at which stage it failed, why, and what has "
        "changed since it last worked.",
    ),
    Behaviour(
        "telemetry.traces",
        "docs/reference/telemetry.md",
        "A trace is read whole and in order, from the client's span down to the libraries'.",
    ),
    Behaviour(
        "telemetry.query",
        "docs/reference/telemetry.md",
        "SQL over telemetry sees the documented views, its own principal's rows and nothing else, for a limited time.",
    ),
    Behaviour(
        "telemetry.prompt",
        "docs/reference/telemetry.md",
        "A prompt leads a model through the tools that tell what is wrong with the server.",
    ),
    Behaviour(
        "telemetry.subscribed",
        "docs/reference/resources-and-prompts.md",
        "Who follows a telemetry resource is told when calls change it, and not because he reads it.",
    ),
    Behaviour(
        "telemetry.recorder-damaged",
        "docs/how-to/back-up-and-restore.md",
        "A recorder that is damaged or gone is replaced, that is said, and the service goes on.",
    ),
    Behaviour(
        "telemetry.recorder-unwritable",
        "docs/explanation/architecture.md",
        "What the disk does not take for the recorder waits in memory, that is said, and it is written later.",
    ),
    Behaviour(
        "telemetry.spool-faults",
        "docs/explanation/architecture.md",
        "A spool that is full, damaged or cannot be made costs no request anything: what is recorded waits in memory "
        "within its bound, is sent, and `status://health` says what is wrong.",
    ),
    Behaviour(
        "telemetry.collector",
        "diagrams: Context Diagram",
        "A real collector takes what is sent, and passes it on unchanged.",
    ),
    Behaviour(
        "telemetry.telemetryflow",
        "diagrams: Context Diagram",
        "A TelemetryFlow collector gets everything once, over HTTP and gRPC, with nothing set but endpoint and key.",
    ),
    Behaviour(
        "telemetry.unasked",
        "SECURITY.md",
        "Without an endpoint nothing is encoded and nothing is sent anywhere.",
    ),
    Behaviour(
        "telemetry.no-contents",
        "SECURITY.md",
        "No argument, message, file's content or name that a client invented is in any signal or in the log.",
    ),
    Behaviour(
        "telemetry.never-waits",
        "README.md",
        "Neither recording nor the end waits for a collector that hangs.",
    ),
    Behaviour(
        "telemetry.libraries",
        "diagrams: Tool Execution",
        "The spans of libraries arrive below the operation around them.",
    ),
    Behaviour(
        "telemetry.logs",
        "OpenTelemetry protocol",
        "Log records are exported with the ids of their trace.",
    ),
    Behaviour(
        "telemetry.error-records",
        "diagrams: Claude API Integration Flow",
        "Each error is a record of its own beside the span that it belongs to.",
    ),
    Behaviour(
        "telemetry.tracestate",
        "SEP-414",
        "A client's `tracestate` is kept in every span of its request, and `baggage` is told to nobody.",
    ),
)

CLIENT: Sequence[Behaviour] = (
    Behaviour(
        "telemetry.client.states",
        "diagrams: Telemetry Client State Machine; diagrams: Overview",
        "The telemetry client takes the edges that are drawn, those to ShuttingDown, and no others.",
    ),
    Behaviour(
        "telemetry.client.disabled",
        "diagrams: Telemetry Client State Machine",
        "Telemetry that is off records nothing, starts nothing, and hands traces on.",
    ),
    Behaviour(
        "telemetry.client.created",
        "diagrams: Telemetry Client State Machine",
        "Telemetry that is on records from its creation on, before anything heavy is imported.",
    ),
    Behaviour(
        "telemetry.client.ready",
        "diagrams: Telemetry Client State Machine",
        "It becomes ready with or without a collector in sight.",
    ),
    Behaviour(
        "telemetry.client.failed",
        "diagrams: Telemetry Client State Machine",
        "A client that cannot initialize is disabled and says why.",
    ),
    Behaviour(
        "telemetry.client.flush",
        "diagrams: Telemetry Client State Machine",
        "A flush sends what waits, and leads back to Ready; a shutdown overtakes it.",
    ),
    Behaviour(
        "telemetry.client.shutdown",
        "diagrams: Telemetry Client State Machine",
        "A shutdown sends what waits, within its budget, and leaves no thread behind.",
    ),
)
