"""What all telemetry of this process says of the process."""

from __future__ import annotations

import os
import platform
import sys
from uuid import uuid4

from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions

_OS_TYPES = {"win32": "windows"}


def resource_of(options: TelemetryOptions) -> dict[str, object]:
    """Resource attributes: what is found out, what the user adds, and, stronger than both, the settings' own.

    Nothing of it tells of the machine, its user or how the process was started.
    """
    found: dict[str, object] = {
        names.SERVICE_INSTANCE: str(uuid4()),
        names.PROCESS_ID: os.getpid(),
        names.RUNTIME_NAME: sys.implementation.name,
        names.RUNTIME_VERSION: platform.python_version(),
        names.OS_TYPE: _OS_TYPES.get(sys.platform, sys.platform),
    }
    settings = {
        names.SERVICE_NAME: options.service_name,
        names.SERVICE_VERSION: options.service_version,
        names.SERVICE_NAMESPACE: options.namespace,
        names.SERVICE_INSTANCE: options.instance_id,
        names.ENVIRONMENT: options.environment,
        names.SDK_NAME: names.SCOPE,
        names.SDK_LANGUAGE: "python",
        names.SDK_VERSION: options.service_version,
    }
    return {**found, **options.resource_attributes, **{name: value for name, value in settings.items() if value}}
