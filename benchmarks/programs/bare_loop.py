"""As little as can stand between a client and Claude: a loop over the Anthropic SDK, with the messages in memory.

It takes calls of `claude_conversation` and has one conversation at a time: a call without `conversation_id` begins it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import anthropic

if TYPE_CHECKING:
    from anthropic.types import MessageParam

_LONGEST_LINE = 1 << 20


async def main() -> None:
    claude = anthropic.AsyncAnthropic(max_retries=0)
    messages: list[MessageParam] = []
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        call = json.loads(line)
        if "id" not in call:
            continue
        if call["method"] == "initialize":
            _answer(call["id"], {"protocolVersion": call["params"]["protocolVersion"]})
            continue
        arguments = call["params"]["arguments"]
        if "conversation_id" not in arguments:
            messages.clear()
        messages.append({"role": "user", "content": [{"type": "text", "text": arguments["message"]}]})
        async with claude.messages.stream(
            model="claude-sonnet-5-5", max_tokens=4096, messages=messages, cache_control={"type": "ephemeral"}
        ) as stream:
            text = await stream.get_final_text()
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
        told = {"content": [{"type": "text", "text": text}], "structuredContent": {"conversation_id": "the only one"}}
        _answer(call["id"], told)


def _answer(call_id: object, result: object) -> None:
    print(json.dumps({"jsonrpc": "2.0", "id": call_id, "result": result}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
