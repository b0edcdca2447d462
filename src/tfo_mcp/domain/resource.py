"""What clients read by its URI: resources that are always there, and templates for those that come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from tfo_mcp.domain.completion import Completion
from tfo_mcp.domain.errors import UnknownResource
from tfo_mcp.domain.session import Session


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: on whose behalf, and in which session."""

    principal: str
    session: Session


@dataclass(frozen=True, slots=True)
class Content:
    """What reading gives: text, or bytes where it is none."""

    mime_type: str
    data: str | bytes


Read = Callable[[str, Reader], Awaitable[Content]]
"""Reads a URI.

Raises:
    UnknownResource, ToolFailure: there is nothing at this URI, or nothing that may be read.
    StorageUnavailable: there may be, but not now.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource.

    Attributes:
        reads_telemetry: whether it shows what was recorded, so that to read it is in no summary of that.
        subscribable: whether each of its changes is announced (port `Changes`); so too where it never changes.
    """

    uri: str
    name: str
    title: str
    description: str
    mime_type: str
    read: Read
    reads_telemetry: bool = False
    subscribable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceTemplate:
    """Resources whose URIs differ in one variable, at the end.

    Attributes:
        uri_template: RFC 6570, `file:///{path}`.
        mime_type: None where they have not all the same.
        complete: what the variable could be, from what is written of it.
        recent: the newest of them, so many at most, behind the one with a certain URI, which raises `UnknownResource`
            where it can be none of them; None: they are not listed.
        reads_telemetry: as of `Resource`.
        subscribable: as a resource's, of each of them.
    """

    uri_template: str
    name: str
    title: str
    description: str
    read: Read
    complete: Callable[[str, Reader], Awaitable[Completion]]
    mime_type: str | None = None
    recent: Callable[[Reader, int, str | None], Awaitable[Sequence[Resource]]] | None = None
    reads_telemetry: bool = False
    subscribable: bool = False

    @property
    def prefix(self) -> str:
        """What every URI of it begins with."""
        return self.uri_template.partition("{")[0]

    @property
    def variable(self) -> str:
        """The variable's name."""
        return self.uri_template.partition("{")[2].removesuffix("}")


class ResourceRegistry:
    """The resources and templates of this server, in the order in which they were given."""

    def __init__(self, resources: Iterable[Resource] = (), templates: Iterable[ResourceTemplate] = ()) -> None:
        self.resources: Sequence[Resource] = tuple(resources)
        self.templates: Sequence[ResourceTemplate] = tuple(templates)
        self._by_uri = {resource.uri: resource for resource in self.resources}

    def find(self, uri: str) -> Resource | ResourceTemplate:
        """The resource with this URI, or the template that it follows.

        Raises:
            UnknownResource: it is neither.
        """
        found = self._by_uri.get(uri)
        if found is not None:
            return found
        for template in self.templates:
            if uri.startswith(template.prefix):
                return template
        raise UnknownResource(uri)

    def find_template(self, uri_template: str) -> ResourceTemplate | None:
        """The template that is written so."""
        return next((known for known in self.templates if known.uri_template == uri_template), None)
