"""The four state machines."""

from __future__ import annotations

from interaction.arrow import arrows

SESSION = arrows(
    "Session State Machine",
    ("[*] → Created", "a client connects", "session.states", "lifecycle.initialize.first"),
    ("Created → Initializing", "`initialize`", "session.states", "lifecycle.initialize.result"),
    ("Initializing → Ready", "initialized", "session.states", "lifecycle.initialized.makes-ready"),
    ("Initializing → Error", "initialization failed", "session.states", "session.failed"),
    ("Ready → Ready", "any request", "session.states", "session.ready.any-method"),
    ("Ready → Ready", "tools listed, tools called", "tools.list.shape", "tools.call.result"),
    ("Ready → Ready", "resources listed, resources read", "resources.list", "resources.read"),
    ("Ready → Ready", "prompts listed, prompts got", "prompts.list", "prompts.get"),
    ("Ready → Closing", "`shutdown`", "session.states", "session.closing"),
    ("Error → Closing", "cleanup", "session.states", "session.failed"),
    ("Closing → Closed", "cleanup complete", "session.states", "session.closing", "session.stored"),
    ("Closed → [*]", "the process is gone", "session.closing", "stdio.end.input"),
    ("Ready/[*] → Ready/Idle", "nothing under way", "session.ready.processing"),
    ("Ready/Idle → Ready/Processing", "a request", "session.ready.processing"),
    ("Ready/Processing → Ready/Idle", "its answer", "session.ready.processing"),
)

CONVERSATION = arrows(
    "Conversation State Machine",
    ("[*] → Created", "a message without a conversation", "conversation.created", "conversation.events"),
    ("Created → Active", "the first message", "conversation.states", "conversation.created"),
    ("Active → Active", "another message", "conversation.states", "conversation.continued"),
    ("Active → Waiting", "a request is sent", "conversation.states", "conversation.cancelled"),
    ("Waiting → Active", "the answer", "conversation.states", "conversation.turn"),
    ("Waiting → Error", "the API failed", "conversation.states", "conversation.error"),
    ("Active → Closed", "close", "conversation.states", "conversation.closed"),
    ("Error → Active", "the retry succeeded", "conversation.states", "conversation.retry"),
    ("Error → Closed", "too many failures", "conversation.states", "conversation.max-retries"),
    ("Closed → [*]", "no way out", "conversation.states", "conversation.closed"),
    ("Active/[*] → Active/Ready", "no turn under way", "conversation.turn"),
    ("Active/Ready → Active/Processing", "a turn begins", "conversation.turn"),
    ("Active/Processing → Active/Ready", "and ends", "conversation.turn"),
)

EXECUTION = arrows(
    "Tool Execution State Machine",
    ("[*] → Received", "`tools/call`", "execution.received"),
    ("Received → Validating", "the tool is found", "execution.states", "execution.order"),
    ("Validating → Validated", "the arguments fit", "execution.states", "execution.completed"),
    ("Validating → Failed", "they do not", "execution.states", "execution.invalid"),
    ("Validated → Executing", "the handler runs", "execution.states", "execution.order"),
    ("Executing → Completed", "it succeeded", "execution.states", "execution.completed"),
    ("Executing → Failed", "it failed", "execution.states", "execution.failed"),
    ("Executing → TimedOut", "it took too long", "execution.states", "execution.timed-out"),
    ("Completed → [*]", "its result", "execution.states", "tools.call.result"),
    ("Failed → [*]", "a result that is an error", "tools.call.failure", "tools.call.invalid-arguments"),
    ("TimedOut → [*]", "a result that says so", "tools.call.timeout"),
    ("Executing/[*] → Executing/Running", "running", "execution.mode"),
    ("Executing/Running → Executing/Timeout", "the time limit", "execution.timed-out"),
    ("Executing/Running → Executing/Done", "the end", "execution.completed"),
)

TELEMETRY = arrows(
    "Telemetry Client State Machine",
    ("[*] → Disabled", "telemetry is off", "telemetry.client.disabled"),
    ("[*] → Creating", "telemetry is on", "telemetry.client.created"),
    ("Creating → Initializing", "the client is there", "telemetry.client.states", "telemetry.client.created"),
    ("Initializing → Ready", "it can work", "telemetry.client.states", "telemetry.client.ready"),
    ("Initializing → Disabled", "it cannot", "telemetry.client.states", "telemetry.client.failed"),
    ("Ready → Ready", "metrics", "telemetry.tool.counted", "telemetry.serialized"),
    ("Ready → Ready", "spans", "telemetry.tool.span", "telemetry.serialized"),
    ("Ready → Flushing", "a flush", "telemetry.client.states", "telemetry.client.flush"),
    ("Flushing → Ready", "all is sent", "telemetry.client.states", "telemetry.client.flush"),
    ("Ready → ShuttingDown", "a shutdown", "telemetry.client.states", "telemetry.client.shutdown"),
    ("ShuttingDown → Closed", "all is sent, or time is up", "telemetry.client.states", "telemetry.client.shutdown"),
    ("Closed → [*]", "nothing is left behind", "telemetry.client.shutdown"),
)
