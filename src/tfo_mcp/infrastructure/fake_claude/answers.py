"""Which reply a request gets: the script's next one, or the default behaviour."""

import re

import msgspec

from tfo_mcp.infrastructure.fake_claude.conversation import Asked, Block, result_text
from tfo_mcp.infrastructure.fake_claude.script import Reply, Script, ToolUse, When
from tfo_mcp.infrastructure.fake_claude.structured import simplest

MAX_TOOLS_AT_ONCE = 2
QUOTED_TEXT = 500
QUOTED_RESULT = 80

WORDS = {
    "list_directory": r"files?|director(?:y|ies)|folders?|list",
    "read_file": r"read|readme",
    "system_info": r"systems?|machine|computer",
    "search_files": r"search|find",
    "echo": r"repeat",
}
INPUTS: dict[str, dict[str, object]] = {
    "list_directory": {"path": "."},
    "read_file": {"path": "README.md"},
    "system_info": {},
    "search_files": {"path": ".", "pattern": "*.md"},
}
PLACEHOLDER = re.compile(r"\{(last_user_text|turns|tool_results)\}")


class Player:
    """Plays a script: remembers how often each reply may still be taken."""

    def __init__(self, script: Script) -> None:
        """Begin at the script's first reply."""
        self._replies = script.replies
        self._taken = [0] * len(script.replies)

    def reply_to(self, asked: Asked) -> Reply:
        """Give the reply for `asked`, placeholders filled in."""
        conditional = [index for index, reply in enumerate(self._replies) if reply.when is not None]
        ordered = [index for index, reply in enumerate(self._replies) if reply.when is None]
        for index in conditional + ordered:
            reply = self._replies[index]
            if self._is_left(index) and (reply.when is None or _holds(reply.when, asked)):
                self._taken[index] += 1
                return _filled(reply, asked)
        return default_reply(asked)

    def _is_left(self, index: int) -> bool:
        reply = self._replies[index]
        if reply.when is not None and reply.times is None:
            return True
        return self._taken[index] < (reply.times or 1)


def default_reply(asked: Asked) -> Reply:
    """Answer without a script: ask for tools, fit the schema, summarise tool results, or tell what was seen."""
    calls = () if asked.results else _calls(asked)
    if asked.schema is not None:
        return Reply(tool_use=calls) if calls else Reply(text=msgspec.json.encode(simplest(asked.schema)).decode())
    if asked.results:
        return Reply(text=_summary(asked.results))
    if calls:
        names = " and ".join(call.name for call in calls)
        return Reply(text=f"I will use {names}.", tool_use=calls)
    count = len(asked.request.messages)
    seen = f"{count} message{'' if count == 1 else 's'}"
    return Reply(text=f'I have seen {seen} so far. The first one was: "{asked.first_text[:QUOTED_TEXT]}"')


def _holds(when: When, asked: Asked) -> bool:
    if when.contains is not None and when.contains not in asked.last_text:
        return False
    return when.tool_result is None or when.tool_result == bool(asked.results)


def _filled(reply: Reply, asked: Asked) -> Reply:
    values = {
        "last_user_text": asked.last_text,
        "turns": str(len(asked.turns)),
        "tool_results": "\n".join(map(result_text, asked.results)),
    }

    def filled(text: str | None) -> str | None:
        # One pass, so that braces in what the user wrote are never taken for placeholders.
        return text and PLACEHOLDER.sub(lambda found: values[found[1]], text)

    return msgspec.structs.replace(reply, text=filled(reply.text), thinking=filled(reply.thinking))


def _calls(asked: Asked) -> tuple[ToolUse, ...]:
    choice = asked.request.tool_choice
    if choice is not None and choice.type == "none":
        return ()
    offered = {tool.name for tool in asked.request.tools}
    places: dict[str, int] = {}
    for name, words in WORDS.items():
        found = re.search(rf"\b(?:{words}|{name})\b", asked.last_text, re.IGNORECASE)
        if name in offered and found:
            places[name] = found.start()
    names = sorted(places, key=lambda name: places[name])[:MAX_TOOLS_AT_ONCE]
    echoed: dict[str, object] = {"message": asked.last_text[:QUOTED_TEXT]}
    return tuple(ToolUse(name, INPUTS.get(name, echoed)) for name in names)


def _summary(results: list[Block]) -> str:
    count = len(results)
    quotes = [f"{number}. {_quote(result)}" for number, result in enumerate(results, start=1)]
    return "\n".join([f"I received {count} tool result{'' if count == 1 else 's'}:", *quotes])


def _quote(result: Block) -> str:
    text = " ".join(result_text(result).split())[:QUOTED_RESULT]
    return f'{"failed: " if result.is_error else ""}"{text}"'
