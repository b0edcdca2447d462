"""`tfo-mcp fake-claude`: a stand-in for Anthropic's Messages API on the loopback.

It asks no model and needs no key that means anything. It serves demonstrations and tests
through the real SDK, answers the same thing to the same conversation, refuses what the
API refuses, and says in every text that it is simulated. Of this package it imports only
how the beginning of a picture is read, and knows nothing of MCP.

A script decides the answers. It is YAML with one key:

    replies:
      - text: "You said {last_user_text}."   # placeholders: see below
      - {thinking: "An echo, then.", tool_use: [{name: echo, input: {message: hello}}]}
      - {status: 529, text: "Overloaded", times: 2}
      - {status: 429, retry_after: 0.5}      # seconds, the `retry-after` header
      - {status: 429, error_code: enforced_spend_limit_reached}
      - {text: "It rains.", cut: {events: 4}}
      - {when: {contains: weather}, text: "It rains.", delay: 1.5, delay_between: 0.1}
      - {when: {tool_result: true}, text: "The tools said {tool_results}"}

- A reply has at least one of `text`, `thinking`, `tool_use`, `stop_reason`, `stream_error`,
  `status` (400 to 599), `raw` and `fault`.
- `when`: `contains` is looked for in the text of the last user message (letter case counts),
  `tool_result` says whether that message carries tool results; both must hold if both are given.
- Replies with `when` are looked at first, in their order, and stay, unless `times` is
  given. The others are taken in their order, each `times` (1) times, by whichever valid
  request comes next: a request that the client retries takes the next one. When nothing
  is left, the default behaviour answers.
- `stop_reason` is `tool_use` with tools and `end_turn` without, unless it is given, or the
  request's `max_tokens` or `stop_sequences` end the answer.
- `delay` is seconds before the first byte, `delay_between` seconds between the deltas of a
  block (streaming only), `headers` are added to the answer's.
- `cut` breaks an answer or a refusal off after so many `events` or `bytes`, by closing the connection or,
  if it is `clean`, by ending the body. `stream_error` puts an `error` event of a `type`
  (`overloaded_error`), with a `text` and an `error_code`, in place of what comes `after_events`
  (after the last block).
- A `status` has the `error_type` that goes with it unless one is given, and details if there
  is an `error_code`; `retry_after` is a header.
- `raw` is any body of any `content_type`. `fault` is `garbage`, `hang_up` (the connection is
  closed without an answer) or `silence`.
- Placeholders in `text` and `thinking`: `{last_user_text}`, `{turns}` (how many turns the
  conversation has, neighbours of one role being one turn), `{tool_results}` (the texts of the
  last user message's tool results, one a line). Other braces stay as they are.

By default, a plain text that speaks of files, a directory, a machine, of reading, finding
or repeating asks for up to two of the tools that are offered and that it can fill in;
tool results are counted and quoted; anything else is answered with the number of messages
seen and the first one. Where the request has a schema for the answer, its text is the simplest
JSON that fits, or what the script says as it stands. A token is three UTF-8 bytes, rounded up.

Beside `POST /v1/messages` stand `count_tokens` and `GET /v1/models`. Prompts are compacted and
cleared as `context_management` asks, and cached as the API caches them: `DELETE /__cache` empties
the cache, `POST /__clock` puts its clock forward.
`GET /__requests` lists the last 200 requests, oldest first, `DELETE` forgets them.
"""

from tfo_mcp.infrastructure.fake_claude.app import build_app, serve
from tfo_mcp.infrastructure.fake_claude.content import SIMULATED
from tfo_mcp.infrastructure.fake_claude.script import (
    Reply,
    Script,
    ScriptError,
    ToolUse,
    When,
    load_script,
)

__all__ = [
    "SIMULATED",
    "Reply",
    "Script",
    "ScriptError",
    "ToolUse",
    "When",
    "build_app",
    "load_script",
    "serve",
]
