"""What goes with a message to Claude beside its text, and what comes with the answer."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

_PAGE = "docs/reference/files-and-output.md"

SENDS: Sequence[Behaviour] = (
    Behaviour(
        "send.files",
        _PAGE,
        "Pictures, PDFs and texts inside the roots go with a message, told by their bytes, in their order.",
    ),
    Behaviour(
        "send.files.kept",
        _PAGE,
        "They are kept with the conversation and reach Claude unchanged in later turns, also after a restart.",
    ),
    Behaviour(
        "send.files.not-shown",
        _PAGE,
        "Who reads a conversation is told of a file its type, and nothing that is in it.",
    ),
    Behaviour(
        "send.files.refused",
        _PAGE,
        "A file outside the roots, of the server's own, special, too large, empty or of another type is one sentence; "
        "nothing is stored or sent.",
    ),
    Behaviour(
        "send.output",
        _PAGE,
        "With an output schema the answer is a value that fits it, or a sentence says why there is none.",
    ),
    Behaviour(
        "send.output.refused",
        _PAGE,
        "A schema that is none, or that no answer can be made to fit, is one sentence; nothing is stored or sent.",
    ),
    Behaviour(
        "send.cost",
        _PAGE,
        "A turn has the cost of its usage, exactly, by the prices that are configured, and none without.",
    ),
)
