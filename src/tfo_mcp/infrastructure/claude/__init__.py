"""4.1 Claude Client. The only package that imports `anthropic`, and that late."""

from tfo_mcp.infrastructure.claude.client import AnthropicClaude
from tfo_mcp.infrastructure.claude.clouds import Bedrock, Vertex

__all__ = ["AnthropicClaude", "Bedrock", "Vertex"]
