"""Why a run has no result."""

from __future__ import annotations


class WrongAnswer(Exception):
    """A server did not do what it was asked, or did not export it: its figures would be worth nothing."""


class Unavailable(Exception):
    """A peer cannot be had here. The text says why, and names no place of this machine."""
