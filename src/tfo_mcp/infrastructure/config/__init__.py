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
from tfo_mcp.infrastructure.config.shown import changed_settings, shown_settings

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
    "changed_settings",
    "load_settings",
    "masked",
    "secrets_of",
    "shown_settings",
]
