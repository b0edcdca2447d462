"""4.0 of the diagrams: adapters to everything outside, each behind a port of the application."""
