"""What the API says of its models: asked once for all who want to know, kept for a while, never waited for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from tfo_mcp.application.ports import ModelInfo

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import ModelInfo as ApiModel

_PATIENCE = 2.0
"""Seconds that a message waits for a description, at most; whoever asks next has it then."""

_TIMEOUT = 10.0
"""Seconds that the API may take for one."""

_AGAIN = 30.0
"""Seconds after which an API that gave none is asked anew."""

_MOST_MODELS = 200
"""Names that are kept: callers choose them."""

_WARNED_BEFORE = 60 * 86_400.0
"""Seconds before its retirement from which on a model is warned of."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a name, None where the API knew nothing; `until` on the monotonic clock."""

    info: ModelInfo | None
    until: float


class ModelDirectory:
    """The descriptions of models by name or alias.

    Args:
        client: gives the SDK's client.
        refresh: seconds after which a description is asked for anew.
        found: told each description that the API gives.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[AsyncAnthropic]],
        *,
        refresh: float,
        found: Callable[[str, ModelInfo], None],
    ) -> None:
        self._client = client
        self._refresh = refresh
        self._found = found
        self._entries: dict[str, _Entry] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def known(self, model: str) -> ModelInfo | None:
        """What was last found; asks nobody."""
        entry = self._entries.get(model)
        return None if entry is None else entry.info

    async def describe(self, model: str) -> ModelInfo | None:
        """What the API says of `model`; None where it knows nothing, or does not say so soon enough."""
        entry = self._entries.get(model)
        if entry is not None and time.monotonic() < entry.until:
            return entry.info
        asking = self._ask(model)
        if entry is None:  # of what was asked before it is told what is known, and the answer comes behind
            await asyncio.wait({asking}, timeout=_PATIENCE)
        return self.known(model)

    def close(self) -> None:
        """Ask for nothing more."""
        for asking in self._asking.values():
            asking.cancel()

    def _ask(self, model: str) -> asyncio.Task[None]:
        if (asking := self._asking.get(model)) is None:
            # In a context of its own: it is no part of the request that happens to want it first.
            asking = asyncio.get_running_loop().create_task(self._fetch(model), context=Context())
            self._asking[model] = asking
        return asking

    async def _fetch(self, model: str) -> None:
        info, lasts = self.known(model), _AGAIN
        try:
            client = (await self._client()).with_options(max_retries=0, timeout=_TIMEOUT)
            info = _info(model, await client.models.retrieve(model))
            lasts = self._refresh
        except Exception as error:  # noqa: BLE001  # whatever it is, messages go without: the API judges them
            if getattr(error, "status_code", None) == 404:  # noqa: PLR2004  # no such model, or a gateway without a list
                info, lasts = None, self._refresh
        finally:
            del self._asking[model]
        self._entries[model] = _Entry(info, time.monotonic() + lasts)
        if len(self._entries) > _MOST_MODELS:
            del self._entries[next(iter(self._entries))]
        if info is not None:
            self._found(model, info)


def warning_of(name: str, info: ModelInfo, now: float) -> str | None:
    """What to say to whoever configured `name`, or None while it may stay; `now` in seconds since the epoch."""
    model = name if info.id == name else f"{name} ({info.id})"
    day = None if info.retires_at is None else datetime.fromtimestamp(info.retires_at, UTC).date().isoformat()
    if info.lifecycle == "retired":
        when = "" if day is None else f" on {day}"
        return f"{model} was retired{when}: requests that name it fail"
    if info.lifecycle == "deprecated":
        when = "on a day that is not known yet" if day is None else f"on {day}"
        return f"{model} is deprecated, to be retired {when}"
    if info.retires_at is not None and info.retires_at - now < _WARNED_BEFORE:
        return f"{model} is to be retired on {day}"
    return None


def _info(name: str, model: ApiModel) -> ModelInfo:
    """Raises whatever it may where `model` is not what the SDK's types promise; a gateway may leave things out."""
    can = cast("Any", model.capabilities)
    retires_at = None if model.retires_at is None else model.retires_at.timestamp()
    known = model.lifecycle in {"active", "deprecated", "retired"}
    return ModelInfo(
        id=model.id or name,
        max_input_tokens=model.max_input_tokens,
        max_tokens=model.max_tokens,
        lifecycle=model.lifecycle if known else "active",
        retires_at=retires_at,
        efforts=None if can is None else _efforts(can.effort),
        thinks=None if can is None else bool(can.thinking.types.adaptive.supported),
        compacts=None if can is None else _is_supported(can.context_management.compact_20260112),
    )


def _efforts(effort: Any) -> frozenset[str]:  # noqa: ANN401  # `EffortCapability`, one attribute a level
    levels = ("low", "medium", "high", "xhigh", "max")
    return frozenset(level for level in levels if _is_supported(getattr(effort, level, None)))


def _is_supported(capability: Any) -> bool:  # noqa: ANN401  # `CapabilitySupport`, or None
    return capability is not None and bool(capability.supported)
