"""Queries: plain reads, each beside the function that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tfo_mcp.application import attributes
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.pages import Page, Place, page_of
from tfo_mcp.domain.completion import Completion, complete_from
from tfo_mcp.domain.errors import (
    ResourceUnavailable,
    StorageUnavailable,
    UnknownCursor,
    UnknownReference,
    UnknownResource,
)
from tfo_mcp.domain.prompt import Prompt, PromptRegistry
from tfo_mcp.domain.resource import Content, Reader, Resource, ResourceRegistry, ResourceTemplate
from tfo_mcp.domain.tool import Tool, ToolRegistry


@dataclass(frozen=True, slots=True)
class Ping:
    """`ping`: is anybody there?"""


async def ping(query: Ping, info: RequestInfo) -> None:  # noqa: ARG001  # the type says it all
    """Nothing, promptly; before `initialize` too."""
    info.session.check_is_open()


# --- tools -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListTools:
    """`tools/list`, from the page that `cursor` stands for."""

    cursor: str | None = None


class ToolQueries:
    """Reads over the tool registry."""

    def __init__(self, tools: ToolRegistry, *, page_size: int) -> None:
        self._tools = tools
        self._page_size = page_size

    async def list_tools(self, query: ListTools, info: RequestInfo) -> Page[Tool]:  # noqa: ARG002  # not filtered yet
        """Tools in the order of registration.

        Raises:
            UnknownCursor: it was not given out for this list.
        """
        return page_of("tools", tuple(self._tools), query.cursor, self._page_size, lambda tool: tool.name)


# --- resources ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListResources:
    """`resources/list`, from the page that `cursor` stands for."""

    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ListResourceTemplates:
    """`resources/templates/list`, from the page that `cursor` stands for."""

    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ReadResource:
    """`resources/read`. Gives a `ReadContent`."""

    uri: str


@dataclass(frozen=True, slots=True)
class ReadContent:
    """What stood at a URI."""

    uri: str
    content: Content


_MOST_RECENT: Final = 20
"""Resources of one template that the list names; the others are found by completion."""

_PATIENCE: Final = 2.0
"""Seconds that a list waits for what is recent; then it does without."""


class ResourceQueries:
    """Reads over the resource registry.

    Args:
        timeout: seconds that reading one may take (`mcp.tool_timeout`).
    """

    def __init__(self, resources: ResourceRegistry, *, page_size: int, timeout: float) -> None:
        self._resources = resources
        self._page_size = page_size
        self._timeout = timeout
        self._deadlines = Deadlines()

    async def list_resources(self, query: ListResources, info: RequestInfo) -> Page[Resource]:
        """What is always there, then the newest of what comes and goes; without those where they cannot be had.

        New ones come at the front of theirs, so that a pass over all pages gives each exactly once.

        Raises:
            UnknownCursor: it was not given out for this list.
        """
        fixed, size = self._resources.resources, self._page_size
        place = Place.of("resources", query.cursor)
        given = max(0, place.count - len(fixed))
        if given >= _MOST_RECENT or (0 < place.count <= len(fixed) and fixed[place.count - 1].uri != place.last):
            raise UnknownCursor(place.cursor)
        following = list(fixed[place.count : place.count + size + 1])
        if len(following) <= size:
            after = place.last if given else None
            wanted = min(size + 1 - len(following), _MOST_RECENT - given)
            try:
                following += await self._recent(_reader(info), wanted, after)
            except UnknownResource as error:
                raise UnknownCursor(place.cursor) from error
        return place.page(following, size, lambda resource: resource.uri)

    async def _recent(self, reader: Reader, wanted: int, after: str | None) -> Sequence[Resource]:
        recent = next((known.recent for known in self._resources.templates if known.recent is not None), None)
        if recent is None or wanted <= 0:
            return ()
        try:
            with self._deadlines.within(_PATIENCE):
                return await recent(reader, wanted, after)
        except (StorageUnavailable, DeadlinePassed):
            return ()

    async def list_templates(self, query: ListResourceTemplates, info: RequestInfo) -> Page[ResourceTemplate]:  # noqa: ARG002  # the same for all
        """Every template.

        Raises:
            UnknownCursor: it was not given out for this list.
        """
        templates = self._resources.templates
        return page_of("templates", templates, query.cursor, self._page_size, lambda known: known.uri_template)

    async def read(self, query: ReadResource, info: RequestInfo) -> ReadContent:
        """Read one resource.

        Raises:
            UnknownResource: nothing is there.
            ToolFailure: what is there may not be read.
            ResourceUnavailable: storage is not there, or it took too long.
        """
        found = self._resources.find(query.uri)
        if info.span is not None and isinstance(found, Resource):  # other URIs are the client's own words
            info.span.set(attributes.RESOURCE_URI, found.uri)
        if info.span is not None and found.reads_telemetry:
            info.span.set(attributes.READS_TELEMETRY, value=True)
        try:
            with self._deadlines.within(self._timeout):
                return ReadContent(query.uri, await found.read(query.uri, _reader(info)))
        except StorageUnavailable as error:
            raise ResourceUnavailable(query.uri, str(error)) from error
        except DeadlinePassed as error:
            raise ResourceUnavailable(query.uri, f"it took more than {self._timeout:g} s") from error


def _reader(info: RequestInfo) -> Reader:
    return Reader(info.principal, info.session)


# --- prompts -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListPrompts:
    """`prompts/list`, from the page that `cursor` stands for."""

    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class GetPrompt:
    """`prompts/get`. Gives a `FilledPrompt`."""

    name: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A prompt and its text for certain arguments."""

    prompt: Prompt
    text: str


class PromptQueries:
    """Reads over the prompt registry."""

    def __init__(self, prompts: PromptRegistry, *, page_size: int) -> None:
        self._prompts = prompts
        self._page_size = page_size

    async def list_prompts(self, query: ListPrompts, info: RequestInfo) -> Page[Prompt]:  # noqa: ARG002  # the same for all
        """Every prompt.

        Raises:
            UnknownCursor: it was not given out for this list.
        """
        return page_of("prompts", tuple(self._prompts), query.cursor, self._page_size, lambda prompt: prompt.name)

    async def get_prompt(self, query: GetPrompt, info: RequestInfo) -> FilledPrompt:
        """One prompt, filled.

        Raises:
            UnknownPrompt: there is none of this name.
            InvalidPromptArgument: an argument is missing, unknown, or not what it may be.
        """
        prompt = self._prompts.find(query.name)
        if info.span is not None:
            info.span.name = f"{info.operation} {prompt.name}"
            info.span.set(attributes.PROMPT, prompt.name)
        return FilledPrompt(prompt, prompt.fill(query.arguments))


# --- completion --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Complete:
    """`completion/complete`: what could an argument be, of which `written` is there already?

    Attributes:
        of: what `reference` names.
        reference: a prompt's name, or a template as it is listed.
    """

    of: Literal["prompt", "resource"]
    reference: str
    argument: str
    written: str


class CompletionQueries:
    """Reads over the registries of prompts and resources; `timeout` as for reading a resource."""

    def __init__(self, prompts: PromptRegistry, resources: ResourceRegistry, *, timeout: float) -> None:
        self._prompts = prompts
        self._resources = resources
        self._timeout = timeout
        self._deadlines = Deadlines()

    async def complete(self, query: Complete, info: RequestInfo) -> Completion:
        """Values that begin with what is written.

        Raises:
            UnknownPrompt, UnknownReference: there is no such argument.
            ResourceUnavailable: storage is not there, or it took too long.
        """
        if query.of == "prompt":
            for argument in self._prompts.find(query.reference).arguments:
                if argument.name == query.argument:
                    return complete_from(argument.values, query.written)
            raise UnknownReference(query.reference, query.argument)
        template = self._resources.find_template(query.reference)
        if template is None or template.variable != query.argument:
            raise UnknownReference(query.reference, query.argument)
        try:
            with self._deadlines.within(self._timeout):
                return await template.complete(query.written, _reader(info))
        except StorageUnavailable as error:
            raise ResourceUnavailable(template.uri_template, str(error)) from error
        except DeadlinePassed as error:
            raise ResourceUnavailable(template.uri_template, f"it took more than {self._timeout:g} s") from error
