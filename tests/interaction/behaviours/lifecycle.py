"""How a client and the server come to speak the same revision: by a handshake, or stateless, request by request."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

HANDSHAKE: Sequence[Behaviour] = (
    Behaviour(
        "lifecycle.initialize.result",
        "MCP 2025-11-25 basic/lifecycle; diagrams: Complete MCP Session Flow",
        "`initialize` is answered with the revision, the server's name and version, its capabilities and instructions.",
    ),
    Behaviour(
        "lifecycle.initialize.first",
        "MCP 2025-11-25 basic/lifecycle",
        "Before `initialize` only `ping` is served; any other request is refused and nothing is lost by asking.",
    ),
    Behaviour(
        "lifecycle.initialize.malformed",
        "MCP 2025-11-25 basic/lifecycle",
        "An `initialize` with wrong params is -32602, and the client may try again.",
    ),
    Behaviour(
        "lifecycle.initialize.once",
        "docs/reference/errors.md",
        "A second `initialize` is refused and changes nothing.",
    ),
    Behaviour(
        "lifecycle.initialize.not-cancellable",
        "MCP 2025-11-25 basic/utilities/cancellation",
        "An `initialize` that somebody cancels is answered all the same.",
    ),
    Behaviour(
        "lifecycle.initialized.makes-ready",
        "MCP 2025-11-25 basic/lifecycle; diagrams: Complete MCP Session Flow",
        "`notifications/initialized` makes the session ready, and so does the first request that does not wait for it.",
    ),
    Behaviour(
        "lifecycle.initialized.not-awaited",
        "MCP 2025-11-25 basic/lifecycle",
        "Requests sent right behind `initialize`, without waiting for its answer, are served.",
    ),
    Behaviour(
        "lifecycle.version.match",
        "MCP 2025-11-25 basic/lifecycle",
        "A revision with a handshake that the client asks for is the one agreed on.",
    ),
    Behaviour(
        "lifecycle.version.unknown",
        "MCP 2025-11-25 basic/lifecycle",
        "A client that asks for a revision nobody knows is offered the latest one with a handshake.",
    ),
    Behaviour(
        "lifecycle.version.vocabulary",
        "MCP 2026-07-28 basic/versioning",
        "After a handshake no answer has a member that only the stateless revision knows.",
    ),
    Behaviour(
        "lifecycle.capabilities.served",
        "MCP 2025-11-25 basic/lifecycle",
        "The methods of every capability that is announced are served; those of any other are -32601.",
    ),
    Behaviour(
        "lifecycle.capabilities.switched-off",
        "docs/reference/settings.md",
        "A feature that is switched off is neither announced nor there.",
    ),
    Behaviour(
        "lifecycle.client.any",
        "MCP 2025-11-25 basic/lifecycle; diagrams: System Overview",
        "Every client is served alike, whatever it calls itself and whatever it can do.",
    ),
    Behaviour(
        "lifecycle.client.not-asked",
        "MCP 2025-11-25 basic/lifecycle",
        "The server sends its client no request, whatever the client says that it can do.",
    ),
    Behaviour(
        "lifecycle.client.sdk",
        "diagrams: Context Diagram",
        "The official SDK's client connects, lists, calls and leaves, in each of its modes.",
    ),
)

STATELESS: Sequence[Behaviour] = (
    Behaviour(
        "stateless.discover",
        "MCP 2026-07-28 basic/lifecycle",
        "`server/discover` names the stateless revisions served, the capabilities, the instructions and the server.",
    ),
    Behaviour(
        "stateless.first-request",
        "MCP 2026-07-28 basic/lifecycle",
        "Any request may be the first: it is served, and takes the place of the handshake for the session.",
    ),
    Behaviour(
        "stateless.envelope.required",
        "MCP 2026-07-28 basic/lifecycle",
        "A request whose `_meta` lacks the revision or the client's capabilities is -32602, naming what is missing.",
    ),
    Behaviour(
        "stateless.envelope.client-optional",
        "MCP 2026-07-28 basic/lifecycle",
        "A request that does not say who the client is is served.",
    ),
    Behaviour(
        "stateless.envelope.version",
        "MCP 2026-07-28 basic/versioning",
        "A revision that is not served stateless is -32022, with those that are and the one that was asked for.",
    ),
    Behaviour(
        "stateless.result.complete",
        "MCP 2026-07-28 basic",
        "Every result says that it is complete, and names the server in its `_meta`.",
    ),
    Behaviour(
        "stateless.result.cache-hints",
        "SEP-2549; MCP 2026-07-28 basic",
        "What may be kept says how long and for whom: not at all, and for this client alone.",
    ),
    Behaviour(
        "stateless.era.initialize-refused",
        "MCP 2026-07-28 basic/versioning",
        "`initialize` on a stateless connection is -32022 with the revisions that are served there.",
    ),
    Behaviour(
        "stateless.era.kept",
        "MCP 2026-07-28 basic/versioning",
        "After a handshake a request with the stateless envelope is refused.",
    ),
    Behaviour(
        "stateless.era.methods",
        "MCP 2026-07-28 changelog",
        "A method of one era is -32601 in the other: `ping` and `logging/setLevel` here, `server/discover` there.",
    ),
    Behaviour(
        "stateless.input-required",
        "SEP-2322",
        "A result may ask the client for input and be continued with it.",
        gap="optional; no tool of the server's own asks its caller anything",
    ),
    Behaviour(
        "stateless.missing-capability",
        "MCP 2026-07-28 basic",
        "A request that needs what its client cannot do is refused with the capability's name.",
        gap="no method and no tool of the server's own needs a capability of the client",
    ),
    Behaviour(
        "stateless.extensions",
        "MCP 2026-07-28 basic",
        "Extensions are negotiated by capability.",
        gap="optional; the server has none yet",
    ),
)
