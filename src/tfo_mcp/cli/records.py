"""What the verbs about conversations share: the database of a configuration, and how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

import click

from tfo_mcp.cli import EXIT_FAILURE, EXIT_STORAGE
from tfo_mcp.cli.configuration import load, refuse

if TYPE_CHECKING:
    from tfo_mcp.domain.catalog import ConversationPage
    from tfo_mcp.domain.identifiers import ConversationId
    from tfo_mcp.infrastructure.config import Loaded
    from tfo_mcp.infrastructure.persistence.archive import Archive
    from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog

_T = TypeVar("_T")

TRACES_LEFT = "what was deleted may still be in the database's log: a server reads it; run `tfo-mcp purge` again later"


@dataclass(frozen=True, slots=True)
class Records:
    """The conversations of whoever uses this machine: on stdio everybody is `principal`."""

    catalog: SqlConversationCatalog
    archive: Archive
    principal: str

    async def head(self, conversation_id: str) -> ConversationPage | None:
        """A conversation without its messages; None where there is none with this id."""
        from tfo_mcp.domain.identifiers import parse_conversation_id

        parsed = parse_conversation_id(conversation_id)
        return None if parsed is None else await self.catalog.page(parsed, self.principal, start=0, limit=0)

    async def heads(self, conversation_ids: tuple[str, ...]) -> dict[ConversationId, ConversationPage]:
        """Each conversation once, without its messages; exits with 1 where one of them is not there."""
        heads = [await self.head(conversation_id) for conversation_id in conversation_ids]
        for conversation_id, head in zip(conversation_ids, heads, strict=True):
            if head is None:
                refuse_unknown(conversation_id)
        return {head.summary.id: head for head in heads if head is not None}


def with_records(config: Path | None, work: Callable[[Records, Loaded], Awaitable[_T]]) -> _T | None:
    """What `work` gives; None where there is no database yet, which is said, and none is made.

    Exits with 3 where the configuration, with 4 where the database cannot be used.
    """
    from tfo_mcp.domain.errors import StorageUnavailable

    loaded = load(config)
    make_fit_for_people()
    path = loaded.settings.storage.database
    if not _is_there(path):
        click.echo(f"tfo-mcp: there are no conversations yet: there is no database {str(path)!r}", err=True)
        return None
    try:
        return asyncio.run(_run(loaded, work))
    except StorageUnavailable as error:
        refuse(error, EXIT_STORAGE)


@contextmanager
def printing() -> Generator[None]:
    """Exits with 1 and a sentence where stdout does not take what is printed inside."""
    try:
        yield
    except BrokenPipeError:
        raise  # click ends quietly then
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would try it once more
        refuse(f"stdout cannot be written: {error.strerror}", EXIT_FAILURE)


def refuse_unknown(conversation_id: str) -> NoReturn:
    """Exit with 1, because there is no such conversation."""
    refuse(
        f"there is no conversation {conversation_id[:100]!r}: `tfo-mcp conversations list` tells which there are",
        EXIT_FAILURE,
    )


def counted(count: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


async def _run(loaded: Loaded, work: Callable[[Records, Loaded], Awaitable[_T]]) -> _T:
    from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
    from tfo_mcp.infrastructure.persistence.archive import Archive
    from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
    from tfo_mcp.infrastructure.persistence.locks import FileLocks
    from tfo_mcp.infrastructure.persistence.storage import Storage

    settings = loaded.settings.storage
    storage = Storage(settings.database)
    records = Records(SqlConversationCatalog(storage), Archive(storage, FileLocks(settings.locks)), LOCAL_PRINCIPAL)
    try:
        return await work(records, loaded)
    finally:
        await storage.close()


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # storage says it better
        return True
    return True


def make_fit_for_people() -> None:
    """No character that a terminal's encoding has not ends a verb; and of the log errors only, in plain words."""
    stdout: object = sys.stdout
    if isinstance(stdout, TextIOWrapper):
        cast("TextIOWrapper", stdout).reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.getLogger("tfo_mcp").addHandler(handler)
