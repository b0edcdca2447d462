"""Where conversations lie that are worked on: one at a time each, whichever process wants it, in fair order.

Whoever works on a conversation has its lock within this process and between processes (DESIGN decision 5), and
gets the aggregate from here: read once, and kept in memory as long as nobody else changes it and there is room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from tfo_mcp.application.ports import ConversationLocks, ConversationRepository, EventPublisher
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationBusy, ConversationNotFound, StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId, parse_conversation_id
from tfo_mcp.domain.turn import PendingSend

_SHORTEST_WAIT = 0.005
_LONGEST_WAIT = 0.1
"""Seconds between two looks whether it is one's turn; each wait is twice the one before."""


class ConversationDesk:
    """Hands conversations out.

    Args:
        cache_bytes: of the messages of conversations that nobody works on, kept in memory.
    """

    def __init__(
        self,
        conversations: ConversationRepository,
        locks: ConversationLocks,
        publisher: EventPublisher,
        *,
        cache_bytes: int,
    ) -> None:
        self._conversations = conversations
        self._locks = locks
        self._publisher = publisher
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[ConversationId, Conversation] = OrderedDict()
        self._queues: dict[ConversationId, tuple[asyncio.Lock, int]] = {}
        self._waiting: set[int] = set()

    @asynccontextmanager
    async def turn_of(self, pending: PendingSend) -> AsyncGenerator[tuple[Conversation, Sequence[PendingSend]]]:
        """The conversation when everything is a turn that was accepted before `pending`.

        With it come those earlier sends whose process died: they are to be begun first, in their order.

        Raises:
            ConversationNotFound: it was deleted meanwhile.
            StorageUnavailable: locks or conversations cannot be had.
        """
        self._waiting.add(pending.id)
        wait = _SHORTEST_WAIT
        try:
            while True:
                async with self._locked(pending.conversation_id) as locked:
                    ahead = await self._conversations.ahead_of(pending) if locked else ()
                    if locked and not await self._any_waits(ahead):
                        yield await self._conversation(pending.conversation_id, pending.principal), ahead
                        return
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        finally:
            self._waiting.discard(pending.id)

    @asynccontextmanager
    async def when_free(self, conversation_id: ConversationId, principal: str) -> AsyncGenerator[Conversation]:
        """The conversation as soon as nobody works on it.

        Raises:
            ConversationNotFound: the principal has no such conversation.
            StorageUnavailable: locks or conversations cannot be had.
        """
        wait = _SHORTEST_WAIT
        while True:
            async with self._locked(conversation_id) as locked:
                if locked:
                    yield await self._conversation(conversation_id, principal)
                    return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    @asynccontextmanager
    async def at_once(self, conversation_id: str, principal: str) -> AsyncGenerator[Conversation]:
        """The conversation, if nobody works on it.

        Raises:
            ConversationNotFound: the principal has no such conversation.
            ConversationBusy: somebody works on it.
            StorageUnavailable: locks or conversations cannot be had.
        """
        parsed = parse_conversation_id(conversation_id)
        if parsed is None or await self.look_at(parsed, principal) is None:
            raise ConversationNotFound(conversation_id)
        if parsed in self._queues:
            raise ConversationBusy(conversation_id)
        async with self._locked(parsed) as locked:
            if not locked:
                raise ConversationBusy(conversation_id)
            yield await self._conversation(parsed, principal)

    async def look_at(self, conversation_id: ConversationId, principal: str) -> Conversation | None:
        """The conversation, to be read only; None where the principal has none such.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        known = self._kept.get(conversation_id)
        if known is not None and conversation_id in self._queues:
            return known if known.principal == principal else None
        found = await self._conversations.get(conversation_id, principal, known)
        if found is not None and conversation_id not in self._queues:
            self._keep(found)
        return found

    async def holds(self, pending: PendingSend) -> bool:
        """Whether somebody still waits with `pending`, here or in another process."""
        return await self._any_waits((pending,))

    async def commit(self, conversation: Conversation) -> None:
        """Store what is new, and publish what happened.

        Raises:
            ConversationBusy: somebody else appended meanwhile, in spite of the lock.
            StorageUnavailable: the database cannot be opened or written.
        """
        events, fence = conversation.uncommitted_events, conversation.fence
        try:
            await self._conversations.save(conversation)
        finally:
            if conversation.fence > fence:  # a save that is cancelled may have gone through
                self._publisher.publish(events)

    async def settle(self, conversation: Conversation) -> None:
        """Commit how something ended badly; a commit that fails must not hide why.

        What storage then still has as under way, a second cancellation's case too, the next send recovers.
        """
        with suppress(StorageUnavailable, ConversationBusy):
            await self.commit(conversation)

    async def _any_waits(self, sends: Sequence[PendingSend]) -> bool:
        for send in sends:
            here = send.holder == self._locks.holder
            if send.id in self._waiting if here else await self._locks.lives(send.holder):
                return True
        return False

    async def _conversation(self, conversation_id: ConversationId, principal: str) -> Conversation:
        known = self._kept.pop(conversation_id, None)
        conversation = await self._conversations.get(conversation_id, principal, known)
        if conversation is None:
            raise ConversationNotFound(conversation_id)
        self._keep(conversation)
        return conversation

    def _keep(self, conversation: Conversation) -> None:
        self._kept[conversation.id] = conversation
        size = sum(kept.transcript.size for kept in self._kept.values())
        while len(self._kept) > 1 and size > self._cache_bytes:
            _, oldest = self._kept.popitem(last=False)
            size -= oldest.transcript.size

    @asynccontextmanager
    async def _locked(self, conversation_id: ConversationId) -> AsyncGenerator[bool]:
        """Alone in this process, and whether alone among all; a queue goes with its last user."""
        queue, users = self._queues.get(conversation_id, (asyncio.Lock(), 0))
        self._queues[conversation_id] = queue, users + 1
        try:
            async with queue:
                if not await self._locks.try_acquire(conversation_id):
                    yield False
                    return
                try:
                    yield True
                finally:
                    await self._locks.release(conversation_id)
        finally:
            queue, users = self._queues.pop(conversation_id)
            if users > 1:
                self._queues[conversation_id] = queue, users - 1
