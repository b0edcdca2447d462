"""The catalogue of `GET /v1/models`, and what of it the other answers need.

Ids and retirements are those of Anthropic's SDK 2.12 (`anthropic.types.Model`, the list in its `messages`
resource); windows, limits, thinking and effort are those of the models' pages at platform.claude.com, the
least cacheable lengths those of its "Prompt caching", all as of October 2026. Of Fable 5.2 and Mythos 5.2 is
assumed what holds for 5.1. A release date that is not known is the epoch, as in the API.
"""

from typing import Literal

import msgspec

Lifecycle = Literal["active", "deprecated", "retired"]

EPOCH = "1970-01-01"
OWN_MODELS = "claude-test-"
"""A name that begins so is a model of the stand-in's own: it can everything, and is not listed."""

THINKING = ("adaptive", "between_tools", "disabled", "enabled")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
_NO_XHIGH = ("low", "medium", "high", "max")


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `minimum` is the shortest prefix that is cached, `picture` the most that one picture takes.

    All lengths are tokens, all dates days.
    """

    id: str
    released: str = EPOCH
    window: int = 1_000_000
    output: int = 128_000
    minimum: int = 512
    picture: int = 4784
    thinking: tuple[str, ...] = ("adaptive",)
    efforts: tuple[str, ...] = EFFORTS
    compacts: bool = True
    default_effort: str = "high"
    lifecycle: Lifecycle = "active"
    deprecated: str | None = None
    retires: str | None = None


_SWITCHABLE = ("adaptive", "disabled")
_EITHER = ("adaptive", "disabled", "enabled")
_MANUAL = ("disabled", "enabled")

MODELS = (
    Model(id="claude-fable-5-2"),
    Model(id="claude-mythos-5-2"),
    Model(id="claude-haiku-5-5", released="2026-10-07", thinking=_SWITCHABLE, default_effort="medium"),
    Model(id="claude-sonnet-5-5", released="2026-09-28", thinking=("adaptive", "between_tools")),
    Model(id="claude-fable-5-1"),
    Model(id="claude-opus-5-5", default_effort="medium"),
    Model(id="claude-mythos-5-1"),
    Model(id="claude-sonnet-5", minimum=1024, thinking=_SWITCHABLE),
    Model(id="claude-fable-5", released="2026-06-09"),
    Model(id="claude-mythos-5", released="2026-06-09"),
    Model(id="claude-opus-5", released="2026-07-24", thinking=_SWITCHABLE),
    Model(id="claude-opus-4-8", released="2026-05-28", minimum=1024, thinking=_SWITCHABLE),
    Model(id="claude-opus-4-7", minimum=2048, thinking=_SWITCHABLE),
    Model(
        id="claude-mythos-preview",
        minimum=2048,
        thinking=("adaptive", "enabled"),
        lifecycle="deprecated",
        deprecated=EPOCH,
        retires="2026-06-30",
    ),
    Model(
        id="claude-opus-4-6",
        released="2026-02-05",
        minimum=4096,
        picture=1568,
        thinking=_EITHER,
        efforts=_NO_XHIGH,
    ),
    Model(
        id="claude-sonnet-4-6",
        released="2026-02-17",
        output=64_000,
        minimum=1024,
        picture=1568,
        thinking=_EITHER,
        efforts=_NO_XHIGH,
    ),
    Model(
        id="claude-haiku-4-5-20251001",
        released="2025-10-15",
        window=200_000,
        output=64_000,
        minimum=4096,
        thinking=_MANUAL,
        efforts=(),
        compacts=False,
        picture=1568,
    ),
    Model(
        id="claude-opus-4-5-20251101",
        released="2025-11-24",
        window=200_000,
        output=64_000,
        minimum=4096,
        thinking=_MANUAL,
        efforts=("low", "medium", "high"),
        compacts=False,
        picture=1568,
    ),
    Model(
        id="claude-sonnet-4-5-20250929",
        released="2025-09-29",
        window=200_000,
        output=64_000,
        minimum=1024,
        thinking=_MANUAL,
        efforts=(),
        compacts=False,
        picture=1568,
        lifecycle="deprecated",
        deprecated=EPOCH,
        retires="2026-11-30",
    ),
    Model(
        id="claude-sonnet-4-20250514",
        released="2025-05-22",
        window=200_000,
        output=64_000,
        minimum=1024,
        thinking=_MANUAL,
        efforts=(),
        compacts=False,
        picture=1568,
        lifecycle="retired",
        deprecated=EPOCH,
        retires="2026-06-15",
    ),
)
"""In the order in which they are listed, the newest first."""

ALIASES = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-0": "claude-sonnet-4-20250514",
}
"""Names that the API resolves but does not list."""

_BY_ID = {model.id: model for model in MODELS}


def find_model(name: str) -> Model | None:
    """Give the model of an id or alias, retired ones included, or one of the stand-in's own."""
    if name.startswith(OWN_MODELS):
        return Model(id=name, minimum=1024, thinking=THINKING)
    return _BY_ID.get(ALIASES.get(name, name))


def describe(model: Model) -> dict[str, object]:
    """Give the API's object of a model."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": _display_name(model.id),
        "created_at": _instant(model.released),
        "line": None if model.id.startswith(OWN_MODELS) else model.id.split("-")[1],
        "lifecycle": model.lifecycle,
        "deprecated_at": _instant(model.deprecated),
        "retires_at": _instant(model.retires),
        "max_input_tokens": model.window,
        "max_tokens": model.output,
        "capabilities": _capabilities(model),
    }


def _display_name(model_id: str) -> str:
    words = [part for part in model_id.split("-") if not _is_date(part)]
    number = ".".join(filter(str.isdigit, words))
    return " ".join([*(word.capitalize() for word in words if not word.isdigit()), number]).strip()


def _is_date(part: str) -> bool:
    return part.isdigit() and len(part) == len("20250514")


def _instant(day: str | None) -> str | None:
    return None if day is None else f"{day}T00:00:00Z"


def _capabilities(model: Model) -> dict[str, object]:
    yes = {"supported": True}
    always = ("batch", "citations", "code_execution", "image_input", "pdf_input", "structured_outputs")
    clears = ("clear_thinking_20251015", "clear_tool_uses_20250919")
    return {
        **dict.fromkeys(always, yes),
        "context_management": {
            **yes,
            **dict.fromkeys(clears, yes),
            "compact_20260112": {"supported": model.compacts},
        },
        "effort": {
            "supported": bool(model.efforts),
            **{effort: {"supported": effort in model.efforts} for effort in EFFORTS},
        },
        "server_tools": {**yes, "code_execution": yes, "web_search": yes},
        "thinking": {**yes, "types": {kind: {"supported": kind in model.thinking} for kind in THINKING}},
    }
