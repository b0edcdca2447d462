"""`tfo-mcp fake-claude`: a stand-in for Anthropic's Messages API on the loopback.

It asks no model and needs no key that means anything. It serves demonstrations and tests
through the real SDK, answers the same thing to the same conversation, refuses what the
API refuses, and says in every text that it is simulated. It imports nothing else of
this package and knows nothing of MCP.

A script decides the answers. It is YAML with one key:

    replies:
      - text: "You said {last_user_text}."   # placeholders: see below
      - tool_use: [{name: echo, input: {message: hello}}]
      - {status: 529, text: "Overloaded", times: 2}
      - {status: 429, retry_after: 0.5}      # seconds, the `retry-after` header
      - {when: {contains: weather}, text: "It rains.", delay: 1.5, delay_between: 0.1}
      - {when: {tool_result: true}, text: "The tools said {tool_results}"}

- A reply has at least one of `text`, `tool_use`, `stop_reason` and `status` (400 to 599).
- `when`: `contains` is looked for in the text of the last user message (letter case counts),
  `tool_result` says whether that message carries tool results; both must hold if both are given.
- Replies with `when` are looked at first, in their order, and stay, unless `times` is
  given. The others are taken in their order, each `times` (1) times, by whichever valid
  request comes next: a request that the client retries takes the next one. When nothing
  is left, the default behaviour answers.
- `stop_reason` is `tool_use` with tools and `end_turn` without, unless it is given.
- `delay` is seconds before the first byte, `delay_between` seconds between text deltas
  (streaming only).
- Placeholders in `text`: `{last_user_text}`, `{turns}` (how many turns the conversation
  has, neighbours of one role being one turn), `{tool_results}` (the texts of the last
  user message's tool results, one a line). Other braces stay as they are.

By default, a plain text that speaks of files, a directory, a machine, of reading, finding
or repeating asks for up to two of the tools that are offered and that it can fill in;
tool results are counted and quoted; anything else is answered with the number of messages
seen and the first one. A token is three UTF-8 bytes, rounded up.

`GET /__requests` lists the last 200 requests to the Messages API, oldest first, `DELETE`
forgets them.
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
