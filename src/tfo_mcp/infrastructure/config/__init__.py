"""4.4 Config: what the server is told from outside, as one checked, frozen tree of settings."""

from tfo_mcp.infrastructure.config.load import Loaded, load_settings
from tfo_mcp.infrastructure.config.settings import (
    ClaudeSettings,
    ConfigurationError,
    ExecuteCommandSettings,
    LoggingSettings,
    McpSettings,
    Secret,
    ServerSettings,
    Settings,
    StorageSettings,
    TelemetrySettings,
    ToolSettings,
    masked,
    secrets_of,
)

__all__ = [
    "ClaudeSettings",
    "ConfigurationError",
    "ExecuteCommandSettings",
    "Loaded",
    "LoggingSettings",
    "McpSettings",
    "Secret",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "TelemetrySettings",
    "ToolSettings",
    "load_settings",
    "masked",
    "secrets_of",
]
