"""What a server may offer beside tools, and what it may ask of its client."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

_OPTIONAL = "optional; "

OFFERS: Sequence[Behaviour] = (
    Behaviour(
        "resources.list",
        "MCP 2025-11-25 server/resources; diagrams: Session State Machine",
        "`resources/list` gives each resource a URI, a name and a type.",
    ),
    Behaviour(
        "resources.templates.list",
        "MCP 2025-11-25 server/resources",
        "`resources/templates/list` gives the URI templates of files and conversations.",
    ),
    Behaviour(
        "resources.read",
        "MCP 2025-11-25 server/resources; diagrams: Session State Machine",
        "`resources/read` gives the contents of a resource under its URI, with a type.",
    ),
    Behaviour(
        "resources.read.unknown",
        "docs/reference/errors.md; MCP 2026-07-28 server/resources",
        "A resource that is not there is -32602, naming its URI.",
    ),
    Behaviour(
        "resources.read.not-found-code",
        "MCP 2025-11-25 server/resources",
        "In a revision with a handshake a resource that is not there is -32002.",
        gap="-32602 in every revision: the newest one has retired -32002",
    ),
    Behaviour(
        "resources.read.file-roots",
        "MCP 2025-11-25 server/resources; SECURITY.md",
        "`file:///…` reaches what is inside the roots; no spelling of a URI leads outside.",
    ),
    Behaviour(
        "resources.read.config",
        "README.md; SECURITY.md",
        "`config://server` shows every setting in force, and no secret.",
    ),
    Behaviour(
        "resources.read.health",
        "README.md",
        "`status://health` says how storage, telemetry and Claude really are.",
    ),
    Behaviour(
        "resources.read.conversation",
        "diagrams: System Overview",
        "`conversation://{id}` gives the conversation as storage has it, to its own principal only.",
    ),
    Behaviour(
        "resources.list.changed",
        "MCP 2025-11-25 server/resources",
        "A change of the resources is notified.",
        gap=_OPTIONAL + "not announced: other processes change what is listed too",
    ),
    Behaviour(
        "resources.subscribe",
        "MCP 2025-11-25 server/resources",
        "Who has subscribed to a resource is told when it changes, until he unsubscribes.",
    ),
    Behaviour(
        "resources.subscribe.refused",
        "MCP 2025-11-25 server/resources; docs/reference/resources-and-prompts.md",
        "What is not there, or changes without anybody knowing, cannot be subscribed to: -32602, naming its URI.",
    ),
    Behaviour(
        "resources.subscribe.limit",
        "docs/reference/settings.md",
        "A client that follows as many resources as it may is refused another one by -32600.",
    ),
    Behaviour(
        "resources.subscribe.bounded",
        "docs/reference/resources-and-prompts.md",
        "Of a resource's changes one a second is told at most, the last always; to who does not read, all are one.",
    ),
    Behaviour(
        "resources.listen",
        "MCP 2026-07-28 basic/utilities/subscriptions; SEP-2575",
        "`subscriptions/listen` first says what it will tell of; all that comes bears its id, until it is cancelled.",
    ),
    Behaviour(
        "resources.listen.open",
        "docs/reference/resources-and-prompts.md",
        "A stream that is open is in no other request's way, and is recorded once, when it ends.",
    ),
    Behaviour(
        "resources.listen.end",
        "MCP 2026-07-28 basic/utilities/subscriptions; SEP-2575",
        "When the server ends, each open stream gets its result at once.",
    ),
    Behaviour(
        "prompts.list",
        "MCP 2025-11-25 server/prompts; diagrams: Session State Machine",
        "`prompts/list` gives each prompt a name, a description and its arguments.",
    ),
    Behaviour(
        "prompts.get",
        "MCP 2025-11-25 server/prompts; diagrams: Session State Machine",
        "`prompts/get` gives the messages of a prompt with its arguments filled in.",
    ),
    Behaviour(
        "prompts.get.invalid",
        "MCP 2025-11-25 server/prompts",
        "An unknown prompt and a required argument that is missing are -32602, naming it.",
    ),
    Behaviour(
        "prompts.list.changed",
        "MCP 2025-11-25 server/prompts",
        "A change of the prompts is notified.",
        gap=_OPTIONAL + "they do not change while the server runs",
    ),
    Behaviour(
        "completion.complete",
        "MCP 2025-11-25 server/utilities/completion",
        "`completion/complete` offers at most 100 values for a prompt's argument or a template's variable.",
    ),
    Behaviour(
        "completion.invalid",
        "MCP 2025-11-25 server/utilities/completion",
        "A reference to what does not exist is -32602.",
    ),
    Behaviour(
        "completion.roots",
        "MCP 2025-11-25 server/utilities/completion; SECURITY.md",
        "Paths are completed inside the roots only.",
    ),
    Behaviour(
        "pagination.pages",
        "MCP 2025-11-25 server/utilities/pagination",
        "A list too long for one page comes in pages, by opaque cursors, each item once.",
    ),
    Behaviour(
        "pagination.cursor",
        "MCP 2025-11-25 server/utilities/pagination",
        "A cursor that was not given out for this list is -32602.",
    ),
    Behaviour(
        "logging.level",
        "MCP 2025-11-25 server/utilities/logging",
        "After `logging/setLevel` the client gets log messages from this level up, in order; before it, none.",
    ),
    Behaviour(
        "logging.level.invalid",
        "MCP 2025-11-25 server/utilities/logging",
        "A level that is none is -32602.",
    ),
    Behaviour(
        "logging.messages.no-secrets",
        "MCP 2025-11-25 server/utilities/logging",
        "Log messages to a client hold no secrets and no exception's text.",
    ),
    Behaviour(
        "logging.messages.bounded",
        "MCP 2025-11-25 server/utilities/logging",
        "What a client does not read of them is dropped and counted, and stops no call.",
    ),
    Behaviour(
        "logging.per-request",
        "MCP 2026-07-28 server/utilities/logging",
        "A stateless request that asks for log messages gets its own, from that level up and before its answer.",
    ),
)

CLIENT: Sequence[Behaviour] = (
    Behaviour(
        "client.sampling",
        "MCP 2025-11-25 client/sampling",
        "The server asks the client's model.",
        gap=_OPTIONAL + "the server asks Claude itself",
    ),
    Behaviour(
        "client.elicitation",
        "MCP 2025-11-25 client/elicitation",
        "The server asks the user through the client.",
        gap=_OPTIONAL + "no tool of the server's own needs it",
    ),
    Behaviour(
        "client.roots",
        "MCP 2025-11-25 client/roots",
        "The server asks for the client's roots.",
        gap=_OPTIONAL + "roots are configured on the server, and a client's never widen them",
    ),
    Behaviour(
        "client.subscriptions",
        "MCP 2026-07-28 basic/patterns/subscriptions",
        "A stateless client listens for changes.",
        gap=_OPTIONAL + "nothing that is offered changes while the server runs",
    ),
    Behaviour(
        "client.tasks",
        "MCP 2025-11-25 basic/utilities/tasks; SEP-2663",
        "A long call runs as a task that is asked for later.",
        gap=_OPTIONAL + "experimental in the protocol; arrives, if at all, with durable turns",
    ),
)
