"""3.3 Tool Entity: what a tool is called, takes, gives and promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from tfo_mcp.domain.errors import UnknownTool


class ToolMode(Enum):
    """How a tool is run (DESIGN decision 1b)."""

    INLINE = "inline"
    """A plain function that is fast and never blocks; runs on the event loop."""
    TASK = "task"
    """A coroutine function."""
    THREAD = "thread"
    """A plain function that may block; runs in a worker thread and asks `context.check()` now and then."""


@dataclass(frozen=True, slots=True)
class ToolAnnotations:
    """The promises of MCP's `ToolAnnotations`; the defaults are the specification's, so fail closed."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gives: `text` for people and models, `structured` for programs.

    A tool with an output schema always gives `structured`, unless `is_error`. `timed_out` is an error that
    gives what there was when the time was over.
    """

    text: str
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    timed_out: bool = False


class Abandonable(Protocol):
    """Work in a thread that somebody waits for, or no longer does."""

    def check(self) -> None:
        """Raise when the call was cancelled or is over its deadline; for threads, cheap enough for loops."""
        ...


class ToolContext(Abandonable, Protocol):
    """What a running tool may ask of the server."""

    principal: str

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell a client that asked for it how far the call is; from coroutines only."""
        ...

    async def dispatch(self, message: object) -> Any:  # noqa: ANN401  # each message has a result type of its own
        """Send a command or query on the bus, on behalf of the request that this call belongs to."""
        ...


ToolFunction = Callable[[Mapping[str, Any], ToolContext], "ToolResult | Awaitable[ToolResult]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool.

    Attributes:
        input_schema: JSON Schema 2020-12 of the arguments, `type: object` at the root.
        output_schema: JSON Schema of `structuredContent`, where the tool gives any.
        run: called with validated arguments; what it returns or awaits is a `ToolResult`.
        timeout: seconds; None means the server's `mcp.tool_timeout`.
        for_claude: whether it may ever be offered to Claude inside a turn.
        reads_telemetry: whether it asks what was recorded, and so is in no summary of that.
        audited: the arguments whose values the audit keeps, because they say what the tool was about to do; of
            the others, contents above all, it keeps the names.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    run: ToolFunction
    mode: ToolMode
    output_schema: Mapping[str, Any] | None = None
    annotations: ToolAnnotations = field(default_factory=ToolAnnotations)
    timeout: float | None = None
    for_claude: bool = True
    reads_telemetry: bool = False
    audited: tuple[str, ...] = ()


class ToolRegistry:
    """The tools of this server, by name, in the order in which they were registered."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.register(tool)

    def register(self, tool: Tool) -> None:
        """Add a tool.

        Raises:
            ValueError: the name is taken.
        """
        if tool.name in self._tools:
            msg = f"a tool named {tool.name!r} is registered already"
            raise ValueError(msg)
        self._tools[tool.name] = tool

    def find(self, name: str) -> Tool:
        """The tool called `name`.

        Raises:
            UnknownTool: there is none.
        """
        tool = self._tools.get(name)
        if tool is None:
            raise UnknownTool(name)
        return tool

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())
