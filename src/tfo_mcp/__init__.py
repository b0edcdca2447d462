"""TelemetryFlow Python MCP Server: the MCP server that records itself."""

__version__ = "2.0.0"
