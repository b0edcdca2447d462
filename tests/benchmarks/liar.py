"""A server that answers the handshake, and calls of `echo` in a way that it is told: `python liar.py WAY`."""

from __future__ import annotations

import json
import sys
from typing import Any


def answers(call: dict[str, Any], way: str) -> list[dict[str, Any]]:
    text = {"type": "text", "text": call["params"]["arguments"]["message"]}
    honest: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"], "result": {"content": [text], "isError": False}}
    match way:
        case "another text":
            text["text"] += "!"
        case "an error":
            honest["result"]["isError"] = True
        case "no result":
            del honest["result"]
            honest["error"] = {"code": -32603, "message": "Internal error"}
        case "another id":
            honest["id"] = 0 if call["id"] else 1
        case "twice":
            return [honest, honest]
        case "leaves":
            sys.exit()
        case _:
            pass
    return [honest]


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] == "initialize":
            replies = [{"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-06-18"}}]
        else:
            replies = answers(message, sys.argv[1]) if message["method"] == "tools/call" else []
        print(*map(json.dumps, replies), sep="\n", end="\n" if replies else "", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
