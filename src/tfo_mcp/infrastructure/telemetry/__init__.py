"""4.3 Telemetry: an operation becomes one record; a thread makes metrics and OTLP of it; another sends."""
