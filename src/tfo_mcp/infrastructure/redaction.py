"""Takes secrets out of text that leaves the process beside the protocol: the log, and what telemetry tells."""

from __future__ import annotations

import json
import re

from tfo_mcp.infrastructure.config import Settings, secrets_of

_SHORTEST_SECRET = 8
"""Characters; to blot out anything shorter would blot out ordinary words."""

# Every log record is searched: a word boundary in front of an alternative would take five times as long, and what may
# begin anywhere in a long word, time in proportion to its square.
_SECRETS = re.compile(
    r"sk-ant-[\w-]+|tfs_\w+"  # Anthropic's and TelemetryFlow's keys
    r"|sk-(?<!\wsk-)[\w-]{20,}|AIza[\w-]{35}|(?:AKIA|ASIA)[A-Z0-9]{16}"  # OpenAI's, Google's, Amazon's
    r"|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{10,}"  # GitHub, GitLab, Slack
    r"|eyJ(?<![\w-]eyJ)[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"  # JSON Web Tokens
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?i:(?<=bearer ))[\w.~+/=-]{16,}"
    r"|(?<=://)[^\s/@\"']+(?=@)"  # user and password in a URL
)


CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
CONTROLS_WITHIN_LINES = {code: text for code, text in CONTROLS.items() if chr(code) not in "\n\t"}
"""For `str.translate`: what a terminal would obey is spelt out."""


class Redaction:
    """Called with a text, gives it with `***` for the configured secrets and for what looks like one."""

    def __init__(self, settings: Settings) -> None:
        hidden = [text for secret in secrets_of(settings) if len(text := secret.reveal()) >= _SHORTEST_SECRET]
        self._hidden = (*hidden, *(json.dumps(text, ensure_ascii=False)[1:-1] for text in hidden))

    def __call__(self, text: str) -> str:
        for secret in self._hidden:
            text = text.replace(secret, "***")
        return _SECRETS.sub("***", text)
