"""Names of the attributes that the core sets on what it records; no other module spells them out.

- `mcp.*`, `gen_ai.*`, `http.*`, `error.type`, `exception.type`, `jsonrpc.*`, `rpc.*`, `network.*`: OpenTelemetry's
  semantic conventions.
- `tfo.*`: our own.

Names of metrics, of the resource and of what only telemetry itself adds stand in
`infrastructure/telemetry/conventions.py`.
"""

from __future__ import annotations

from typing import Final

METHOD: Final = "mcp.method.name"
PROTOCOL_VERSION: Final = "mcp.protocol.version"
SESSION: Final = "mcp.session.id"
REQUEST_ID: Final = "jsonrpc.request.id"
ERROR_CODE: Final = "rpc.response.status_code"  # of a JSON-RPC error, as text
RESOURCE_URI: Final = "mcp.resource.uri"
TRANSPORT: Final = "network.transport"

TOOL: Final = "gen_ai.tool.name"
PROMPT: Final = "gen_ai.prompt.name"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
CONVERSATION: Final = "gen_ai.conversation.id"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

HTTP_STATUS: Final = "http.response.status_code"
RESEND_COUNT: Final = "http.request.resend_count"

ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
ERROR_ID: Final = "tfo.error.id"
CLAUDE_REQUEST_ID: Final = "tfo.claude.request.id"
READS_TELEMETRY: Final = "tfo.telemetry.read"  # what asks the recorder is in no summary of it
CLAUDE_ATTEMPT: Final = "tfo.claude.attempt"  # an event, not an attribute
ATTEMPT_DURATION: Final = "tfo.claude.attempt.duration"

OTHER: Final = "_OTHER"
"""OpenTelemetry's word for a value outside the bounded set: a tool whose name a client invented."""


def exception_type(error: BaseException) -> str:
    """The value of `exception.type`: the class's full name, as the conventions want it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
