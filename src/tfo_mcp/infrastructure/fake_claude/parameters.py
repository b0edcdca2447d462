"""The request's own fields: which there are, and which values the API refuses.

The names are those of `MessageCreateParams` and `MessageCountTokensParams` in Anthropic's SDK 2.12.
"""

from typing import NoReturn

from tfo_mcp.infrastructure.fake_claude.conversation import Request
from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.models import EFFORTS, OWN_MODELS, THINKING, Model
from tfo_mcp.infrastructure.fake_claude.shapes import Fields, inner
from tfo_mcp.infrastructure.fake_claude.structured import check_schema

COUNTED_FIELDS = frozenset(
    {"cache_control", "messages", "model", "output_config", "speed", "system", "thinking", "tool_choice", "tools"}
)
"""What `POST /v1/messages/count_tokens` takes."""

FIELDS = COUNTED_FIELDS | {
    "container",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
}
LEAST_THINKING_BUDGET = 1024
TOOL_CHOICES = ("auto", "any", "tool", "none")


def check_names(fields: Fields, allowed: frozenset[str], *, beta: bool) -> None:
    """Refuse fields that the API does not know. With a beta header there are others, which pass."""
    for name in fields:
        if name not in allowed and not beta:
            _refuse(f"{name}: Extra inputs are not permitted")


def check_values(fields: Fields, request: Request, model: Model) -> None:
    """Refuse values that the API refuses, `messages`, `system` and `tools` apart."""
    _one_of(fields, "service_tier", ("auto", "standard_only"))
    _one_of(fields, "speed", ("standard", "fast"))
    _metadata(_mapping(fields, "metadata"))
    _stop_sequences(request)
    _thinking(_mapping(fields, "thinking"), request, model)
    _output_config(_mapping(fields, "output_config"), model)
    _tool_choice(_mapping(fields, "tool_choice"), request)
    _max_tokens(fields, request, model)


def _one_of(fields: Fields, name: str, values: tuple[str, ...], where: str = "") -> None:
    value = fields.get(name)
    if value is not None and value not in values:
        shown = ", ".join(map(repr, values[:-1]))
        _refuse(f"{where}{name}: Input should be {shown} or {values[-1]!r}")


def _mapping(fields: Fields, name: str, where: str = "") -> Fields:
    if not isinstance(fields.get(name), dict | None):
        _refuse(f"{where}{name}: Input should be a valid dictionary")
    return inner(fields, name)


def _metadata(metadata: Fields) -> None:
    for name, value in metadata.items():
        if name != "user_id":
            _refuse(f"metadata.{name}: Extra inputs are not permitted")
        if not isinstance(value, str | None):
            _refuse("metadata.user_id: Input should be a valid string")


def _stop_sequences(request: Request) -> None:
    if any(not sequence.strip() for sequence in request.stop_sequences):
        _refuse("stop_sequences: each stop sequence must contain non-whitespace")


def _thinking(thinking: Fields, request: Request, model: Model) -> None:
    if not thinking:
        return
    _one_of(thinking, "display", ("summarized", "omitted"), "thinking.")
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind not in THINKING:
        _refuse("thinking.type: Input should be 'adaptive', 'between_tools', 'disabled' or 'enabled'")
    if kind not in model.thinking:
        _refuse(f'"thinking.type.{kind}" is not supported for this model.')
    if kind != "enabled":
        return
    if not isinstance(budget, int):
        _refuse("thinking.enabled.budget_tokens: Field required")
    if budget < LEAST_THINKING_BUDGET:
        _refuse(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {LEAST_THINKING_BUDGET}")
    if request.max_tokens is not None and budget >= request.max_tokens:
        _refuse("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _output_config(config: Fields, model: Model) -> None:
    for name in config.keys() - {"effort", "format"}:
        _refuse(f"output_config.{name}: Extra inputs are not permitted")
    _one_of(config, "effort", EFFORTS, "output_config.")
    effort = config.get("effort")
    if effort is not None and effort not in model.efforts:
        _refuse(
            f"output_config.effort: {effort!r} is not supported by this model."
            if model.efforts
            else "This model does not support the effort parameter."
        )
    form = _mapping(config, "format", "output_config.")
    if form and form.get("type") != "json_schema":
        _refuse("output_config.format.type: Input should be 'json_schema'")
    if form and not isinstance(form.get("schema"), dict):
        _refuse("output_config.format.schema: Field required")
    if form:
        check_schema(form["schema"])


def _tool_choice(choice: Fields, request: Request) -> None:
    if not choice:
        return
    kind, name = choice.get("type"), choice.get("name")
    if kind not in TOOL_CHOICES:
        _refuse("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if not request.tools and kind != "none":
        _refuse("tool_choice: may only be specified while providing tools")
    if kind == "tool" and name not in [tool.name for tool in request.tools]:
        _refuse(f"Tool '{name}' not found in provided tools")


def _max_tokens(fields: Fields, request: Request, model: Model) -> None:
    most = request.max_tokens
    if most is None:
        return
    if most < 0:
        _refuse("max_tokens: Input should be greater than or equal to 0")
    if most > model.output and not model.id.startswith(OWN_MODELS):
        _refuse(
            f"max_tokens: {most} > {model.output}, which is the maximum allowed number of output tokens for {model.id}"
        )
    if most == 0:
        _warms_only(fields, request)


def _warms_only(fields: Fields, request: Request) -> None:
    """With `max_tokens: 0` the API fills its cache and answers nothing; what asks for output contradicts it."""
    contradicting = {
        "stream": request.stream,
        "thinking.type: 'enabled'": inner(fields, "thinking").get("type") == "enabled",
        "output_config.format": inner(fields, "output_config").get("format") is not None,
        "tool_choice": inner(fields, "tool_choice").get("type") in {"any", "tool"},
    }
    for name, is_set in contradicting.items():
        if is_set:
            _refuse(f"max_tokens: 0 cannot be combined with {name}")


def _refuse(message: str) -> NoReturn:
    raise Rejected(message)
