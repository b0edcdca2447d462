"""The server's own resources as JSON: its configuration, its health, and the caller's conversations."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from tfo_mcp.application.conversation_views import summary_view
from tfo_mcp.application.excerpts import Excerpt, excerpt_of_end
from tfo_mcp.application.ports import ConversationCatalog
from tfo_mcp.domain.catalog import ConversationSummary
from tfo_mcp.domain.completion import MOST_VALUES, Completion, first_of
from tfo_mcp.domain.errors import UnknownResource
from tfo_mcp.domain.health import HealthReport, moment
from tfo_mcp.domain.identifiers import CONVERSATION_URI, parse_conversation_id
from tfo_mcp.domain.resource import Content, Reader, Resource, ResourceTemplate
from tfo_mcp.domain.session import Session

JSON: Final = "application/json"


def server_resources(
    configuration: Mapping[str, Any], report: Callable[[Session], Coroutine[Any, Any, HealthReport]]
) -> list[Resource]:
    """`config://server` and `status://health`.

    Args:
        configuration: what is in force, fit to be shown.
        report: measures the server's health.
    """

    async def read_configuration(uri: str, reader: Reader) -> Content:  # noqa: ARG001  # it is one, and the same for all
        return as_json(configuration)

    async def read_health(uri: str, reader: Reader) -> Content:  # noqa: ARG001  # it is one
        return as_json(_health(await report(reader.session)))

    return [
        Resource(
            uri="config://server",
            name="server-configuration",
            title="Server configuration",
            description="The settings in force and the file that they come from; secrets are masked.",
            mime_type=JSON,
            read=read_configuration,
            subscribable=True,  # it stays as it is for as long as the server runs
        ),
        Resource(
            uri="status://health",
            name="server-health",
            title="Server health",
            description="Measured now: storage, audit, telemetry, Claude and this session, and what follows from them.",
            mime_type=JSON,
            read=read_health,
        ),
    ]


def _health(report: HealthReport) -> dict[str, Any]:
    parts = {name: {"status": part.status.value, **part.details} for name, part in report.components.items()}
    return {"status": report.status.value, "version": report.version, "uptime": report.uptime, "components": parts}


def as_json(value: object) -> Content:
    """`value` as people read it too."""
    return Content(JSON, msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


class ConversationResources:
    """`conversation://{id}`: the caller's own, as storage has them.

    Args:
        max_bytes: of the messages' JSON; the oldest messages are left out where there are more.
    """

    def __init__(self, catalog: ConversationCatalog, *, max_bytes: int) -> None:
        self._catalog = catalog
        self._max_bytes = max_bytes

    def template(self) -> ResourceTemplate:
        """The template, which lists the newest ones."""
        return ResourceTemplate(
            uri_template=f"{CONVERSATION_URI}{{id}}",
            name="conversation",
            title="Conversation with Claude",
            description="A conversation of claude_conversation: its state, messages, tool calls and tokens.",
            mime_type=JSON,
            read=self._read,
            complete=self._complete,
            recent=self._recent,
            subscribable=True,  # `ConversationDesk` announces each commit
        )

    async def _read(self, uri: str, reader: Reader) -> Content:
        parsed = parse_conversation_id(uri.removeprefix(CONVERSATION_URI))
        excerpt = None
        if parsed is not None:
            excerpt = await excerpt_of_end(self._catalog, parsed, reader.principal, room=self._max_bytes)
        if excerpt is None:
            raise UnknownResource(uri)
        return as_json(_shown(excerpt))

    async def _complete(self, written: str, reader: Reader) -> Completion:
        found = await self._catalog.newest(reader.principal, MOST_VALUES + 1, prefix=written)
        return first_of([summary.id for summary in found])

    async def _recent(self, reader: Reader, limit: int, after: str | None) -> Sequence[Resource]:
        last = None if after is None else parse_conversation_id(after.removeprefix(CONVERSATION_URI))
        if after is not None and (last is None or not after.startswith(CONVERSATION_URI)):
            raise UnknownResource(after)
        return list(map(self._listed, await self._catalog.newest(reader.principal, limit, after=last)))

    def _listed(self, summary: ConversationSummary) -> Resource:
        return Resource(
            uri=f"{CONVERSATION_URI}{summary.id}",
            name=summary.id,
            title=summary.title or f"Conversation of {moment(summary.created_at)}",
            description=f"With {summary.model}, {summary.state.value}, last changed {moment(summary.updated_at)}.",
            mime_type=JSON,
            read=self._read,
        )


def _shown(excerpt: Excerpt) -> dict[str, Any]:
    summary = excerpt.summary
    told = summary_view(summary)
    return {
        "id": summary.id,
        **told,
        "system_prompt": excerpt.system_prompt,
        "messages": excerpt.messages,
        "omitted_messages": summary.messages - len(excerpt.messages),
    }
