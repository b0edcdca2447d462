"""A process that appends to conversations, for tests to race, to starve and to kill.

It says `ready` when everything is imported and waits for a line. Then it says a line for each append
that was committed, `{conversation id} {messages}`, and `done`; or `unavailable {sentence}`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import resource
import sys
from pathlib import Path

from support.sends import a_send
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationBusy, StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage

_LATER = (
    "alembic.command",
    "tfo_mcp.infrastructure.persistence.schema",
    "tfo_mcp.infrastructure.persistence.sqlite",
)
"""What storage imports when it is opened: here before the word, so that nobody starts late."""


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("--appends", type=int, default=1)
    parser.add_argument("--size", type=int, default=10, help="characters of a message")
    parser.add_argument("--to", help="append to this conversation, whoever else does")
    parser.add_argument(
        "--largest-file", type=int, help="bytes; where it is reached, the limit goes and one append follows"
    )
    parser.add_argument("--as-nobody", action="store_true", help="give up root's right to write anywhere")
    return parser.parse_args()


async def _append(repository: SqlConversationRepository, arguments: argparse.Namespace) -> None:
    text = "x" * arguments.size
    conversation = Conversation.create(principal="local", model="m")
    for _ in range(arguments.appends):
        while True:
            if arguments.to:
                found = await repository.get(ConversationId(arguments.to), "local")
                assert found is not None
                conversation = found
            conversation.begin_turn(a_send(text))
            try:
                await repository.save(conversation)
                break
            except ConversationBusy:
                continue
            except StorageUnavailable as error:
                say(f"unavailable {error}")
                if arguments.largest_file is None:
                    return
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await repository.save(conversation)
                say(f"{conversation.id} {len(conversation.messages)}")
                return
        say(f"{conversation.id} {len(conversation.messages)}")
    say("done")


async def _run(arguments: argparse.Namespace) -> None:
    storage = Storage(arguments.database)
    if arguments.largest_file is not None:
        await storage.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.largest_file, resource.RLIM_INFINITY))
    await _append(SqlConversationRepository(storage), arguments)
    await storage.close()


def main() -> None:
    """Get ready, wait for the word, append."""
    arguments = _arguments()
    for module in _LATER:
        importlib.import_module(module)
    if arguments.as_nobody and os.getuid() == 0:
        os.setuid(65534)
    say("ready")
    sys.stdin.readline()
    asyncio.run(_run(arguments))


if __name__ == "__main__":
    main()
