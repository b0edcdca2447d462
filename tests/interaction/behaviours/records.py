"""Conversations as they are kept: found, read, forked and closed, without a word to Claude."""

from __future__ import annotations

from collections.abc import Sequence

from interaction.behaviour import Behaviour

_PAGE = "docs/reference/conversations.md"

RECORDS: Sequence[Behaviour] = (
    Behaviour(
        "records.list",
        _PAGE,
        "`list_conversations` gives the caller's, those changed last first, each with title, state, counts and tokens.",
    ),
    Behaviour(
        "records.list.pages",
        _PAGE,
        "A pass over the pages gives each conversation once, whatever is added; a cursor is good for its own search.",
    ),
    Behaviour(
        "records.search",
        _PAGE,
        "A search finds where the user or Claude said each of its words, in any language, and not what tools gave.",
    ),
    Behaviour(
        "records.search.odd",
        _PAGE,
        "No text that is searched for is an error: quotes, operators and signs are text, no query language.",
    ),
    Behaviour(
        "records.search.existing",
        _PAGE,
        "What was said before there was a search is found by it too.",
    ),
    Behaviour(
        "records.get",
        _PAGE,
        "`get_conversation` gives messages in order from a position on, and says what is cut and where to go on.",
    ),
    Behaviour(
        "records.get.bounded",
        f"{_PAGE}; README.md",
        "No page is larger than `tools.max_page_bytes`, whatever is in it, and all pages give each message once.",
    ),
    Behaviour(
        "records.fork",
        _PAGE,
        "A fork has the messages up to one, model and system prompt, has cost nothing yet, and can be continued.",
    ),
    Behaviour(
        "records.fork.answered",
        _PAGE,
        "Tool calls that a fork leaves open are answered in it as not run.",
    ),
    Behaviour(
        "records.fork.apart",
        _PAGE,
        "A fork and its origin go on apart; one that is closed, or waits for Claude, can be forked too.",
    ),
    Behaviour(
        "records.close",
        _PAGE,
        "A conversation that is closed takes no more messages, is said so, and can still be read and forked.",
    ),
    Behaviour(
        "records.close.busy",
        _PAGE,
        "While a turn is under way a conversation cannot be closed, and the turn goes on.",
    ),
    Behaviour(
        "records.refused",
        _PAGE,
        "What is unknown, somebody else's, outside or without sense is told in one sentence each, and changes nothing.",
    ),
    Behaviour(
        "records.retention",
        "docs/reference/command-line.md; docs/reference/settings.md",
        "A running server deletes what has not changed for `storage.retention_days`, and logs that in one line.",
    ),
    Behaviour(
        "records.retention.off",
        "docs/reference/settings.md",
        "Without `storage.retention_days` everything is kept.",
    ),
)
