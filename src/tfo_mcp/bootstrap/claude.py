"""Who is asked for Claude: Anthropic, Amazon Bedrock or Vertex AI."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfo_mcp.infrastructure.claude import AnthropicClaude, Bedrock, Vertex
from tfo_mcp.infrastructure.config import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


def make_claude(settings: Settings, tracer_provider: Callable[[], TracerProvider | None]) -> AnthropicClaude:
    """The adapter for `claude.provider`; imports nothing heavy."""
    clouds = {
        "anthropic": None,
        "bedrock": Bedrock(settings.claude.aws_region),
        "vertex": Vertex(settings.claude.vertex_project, settings.claude.vertex_region),
    }
    return AnthropicClaude(
        api_key=settings.claude.api_key.reveal(),
        base_url=settings.claude.base_url,
        cloud=clouds[settings.claude.provider],
        timeout=settings.claude.timeout,
        max_retries=settings.claude.max_retries,
        default_model=settings.claude.default_model,
        model_refresh=settings.claude.model_refresh,
        tracer_provider=tracer_provider,
    )
