"""Signatures of thinking blocks: by them the API knows its own thoughts, and refuses changed ones."""

import base64
import hashlib

_MARK = b"fake-claude:"


def seal(thought: str) -> str:
    """Give the signature of a thought."""
    return base64.b64encode(_MARK + hashlib.sha256(thought.encode()).digest()).decode()


def is_sealed(shown: str, signature: str) -> bool:
    """Tell whether the stand-in made this block: shown whole, or with its text left out."""
    if shown:
        return signature == seal(shown)
    return signature.startswith(base64.b64encode(_MARK).decode())
