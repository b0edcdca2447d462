"""4.1 Claude Client. The only package that imports `anthropic`, and that late."""

from tfo_mcp.infrastructure.claude.client import AnthropicClaude

__all__ = ["AnthropicClaude"]
