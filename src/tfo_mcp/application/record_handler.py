"""Commands on the record of a conversation, without a word to Claude: to fork it."""

from __future__ import annotations

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import ForkConversation
from tfo_mcp.application.ports import ConversationForks, EventPublisher
from tfo_mcp.domain.errors import ConversationNotFound
from tfo_mcp.domain.fork import Fork
from tfo_mcp.domain.identifiers import parse_conversation_id


class RecordHandler:
    """Changes what is stored of conversations, and publishes what happened."""

    def __init__(self, forks: ConversationForks, publisher: EventPublisher) -> None:
        self._forks = forks
        self._publisher = publisher

    async def fork(self, command: ForkConversation, info: RequestInfo) -> Fork:
        """Begin a new conversation with the messages of another one, whatever its state.

        Raises:
            ConversationNotFound, MessageNotFound, StorageUnavailable: nothing was stored.
        """
        parsed = parse_conversation_id(command.conversation_id)
        if parsed is None:
            raise ConversationNotFound(command.conversation_id)
        return await self._forks.fork(parsed, info.principal, command.last, self._publisher.publish)
