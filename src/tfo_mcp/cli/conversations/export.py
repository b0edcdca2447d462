"""`tfo-mcp conversations export`: conversations as a file, of any length."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import config_option, refuse, working_directory
from tfo_mcp.cli.files import new_file
from tfo_mcp.cli.records import Records, with_records

if TYPE_CHECKING:
    from tfo_mcp.domain.identifiers import ConversationId
    from tfo_mcp.infrastructure.config import Loaded

_FORMATS: Final = ("markdown", "jsonl")


@click.command("export")
@config_option
@click.argument("conversation_ids", nargs=-1, metavar="[CONVERSATION_ID]...")
@click.option("--all", "every", is_flag=True, help="Every conversation, the oldest first.")
@click.option(
    "--format",
    "as_format",
    default="markdown",
    show_default=True,
    type=click.Choice(_FORMATS),
    help="For people, or everything, in JSON Lines.",
)
@click.option(
    "--output",
    "-o",
    default="-",
    show_default=True,
    type=click.Path(readable=False, path_type=Path),
    help="The file, which only you may read; - is stdout.",
)
@click.option("--force", "-f", is_flag=True, help="Replace the file where there is one.")
def command(
    config: Path | None, conversation_ids: tuple[str, ...], as_format: str, output: Path, *, every: bool, force: bool
) -> None:
    """Write conversations as they are now. A file is there whole or not at all."""
    if every is bool(conversation_ids):
        raise click.UsageError("name conversations, or say --all")

    to_stdout = output == Path("-")
    path = working_directory() / output

    async def work(records: Records, _loaded: Loaded) -> bool:
        wanted = list(await records.heads(conversation_ids)) or await records.archive.ids(records.principal)
        with _stdout() if to_stdout else new_file(path, replace=force) as file:
            async for text in _texts(records, wanted, as_format):
                file.write(text.encode())
        return True

    try:
        found = with_records(config, work)
    except FileExistsError:
        refuse(f"{path} is there already" + ("" if force else "; --force replaces it"), EXIT_FAILURE)
    except BrokenPipeError:
        raise  # click ends quietly then
    except OSError as error:
        refuse(f"{'stdout' if to_stdout else path} cannot be written: {error.strerror}", EXIT_FAILURE)
    if found is None and not every:
        raise SystemExit(EXIT_FAILURE)


def _stdout() -> BinaryIO:
    """A descriptor of our own: what could not be written to it is not tried again at the exit.

    Of the number 1 nothing is taken for granted: where stdout is closed, the next file that is opened gets it.
    """
    stdout: TextIO | None = sys.stdout
    if stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.fdopen(os.dup(stdout.fileno()), "wb")


async def _texts(records: Records, wanted: Sequence[ConversationId], as_format: str) -> AsyncGenerator[str]:
    """The file, piece by piece. What is added to a conversation meanwhile is not in it."""
    from tfo_mcp.presentation.exports import conversation_heading, conversation_line, message_line, message_section

    first = True
    for conversation_id in wanted:
        head = await records.head(conversation_id)
        if head is None:  # it was deleted meanwhile
            continue
        if as_format == "markdown":
            yield ("" if first else "\n---\n\n") + conversation_heading(head)
        else:
            yield conversation_line(head)
        first = False
        count = left = head.summary.messages
        async for position, message in records.archive.messages(conversation_id, start=0, end=count):
            left -= 1
            if as_format == "markdown":
                yield message_section(position, message)
            else:
                yield message_line(conversation_id, position, message)
        if left:
            refuse(f"conversation {conversation_id} was deleted while it was exported", EXIT_FAILURE)
