"""Where conversations lie that are worked on: one at a time each, whichever process wants it, in fair order.

Whoever works on a conversation has its lock within this process and between processes (DESIGN decision 5), and
gets the aggregate from here: read once, and kept in memory as long as nobody else changes it and there is room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import count

from tfo_mcp.application.ports import (
    Changes,
    ConversationLocks,
    ConversationRepository,
    EventPublisher,
    RecordedTurn,
)
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationBusy, ConversationNotFound, StorageUnavailable
from tfo_mcp.domain.identifiers import CONVERSATION_URI, ConversationId, parse_conversation_id
from tfo_mcp.domain.turn import PendingSend, Send

_SHORTEST_WAIT = 0.005
_LONGEST_WAIT = 0.1
"""Seconds between two looks whether it is one's turn; each wait is twice the one before."""

_LONGEST_PAUSE = 30.0
"""Seconds between two attempts to withdraw a send; the first pause is `_LONGEST_WAIT`, each twice the one before."""


class SendTaken(Exception):
    """A send that was taken for a dead process's and begun by somebody else: it has its turn."""


class _Queue:
    """Those of this process who want one conversation, each at a place of its own, and whether one has it."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self._changed = asyncio.Condition()
        self._busy = False

    @asynccontextmanager
    async def alone(self, place: tuple[int, int]) -> AsyncGenerator[None]:
        """When nobody has it and no place that is taken is lower."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._busy and min(self.places) == place)
            self._busy = True
        try:
            yield
        finally:
            self._busy = False
            await self.tell()

    async def tell(self) -> None:
        """Something has changed; to be cancelled here keeps it from nobody."""
        await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


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
        changes: Changes,
        cache_bytes: int,
    ) -> None:
        self._conversations = conversations
        self._locks = locks
        self._publisher = publisher
        self._changes = changes
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[ConversationId, Conversation] = OrderedDict()
        self._queues: dict[ConversationId, _Queue] = {}
        self._waiting: set[int] = set()
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._come = count()

    @contextmanager
    def waiting(self, pending: PendingSend) -> Generator[None]:
        """Its sender waits here: until it is a turn, or withdrawn, nobody begins it in his place."""
        self._waiting.add(pending.id)
        try:
            yield
        finally:
            self._waiting.discard(pending.id)

    @asynccontextmanager
    async def turn_of(self, pending: PendingSend) -> AsyncGenerator[tuple[Conversation, Sequence[PendingSend]]]:
        """The conversation when everything is a turn that was accepted before `pending`.

        With it come those earlier sends whose process died: they are to be begun first, in their order.

        Raises:
            ConversationNotFound: it was deleted meanwhile.
            SendTaken: it is somebody else's turn by now.
            StorageUnavailable: locks or conversations cannot be had.
        """
        async with self._in_line(pending.conversation_id, pending.id) as alone:
            wait = _SHORTEST_WAIT
            while True:
                async with alone(), self._locked(pending.conversation_id):
                    waiting = frozenset(self._waiting)  # what is withdrawn meanwhile may be among what is read
                    known = self._kept.pop(pending.conversation_id, None)
                    conversation, line = await self._conversations.next_for(pending, known)
                    if conversation is None:
                        raise ConversationNotFound(pending.conversation_id)
                    self._keep(conversation)
                    if not line or line[-1].id != pending.id:
                        raise SendTaken
                    ahead = line[:-1]
                    if not await self._any_waits(ahead, waiting):
                        yield conversation, ahead
                        return
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    @asynccontextmanager
    async def when_free(self, conversation_id: ConversationId, principal: str) -> AsyncGenerator[Conversation]:
        """The conversation as soon as nobody works on it.

        Raises:
            ConversationNotFound: the principal has no such conversation.
            StorageUnavailable: locks or conversations cannot be had.
        """
        async with self._in_line(conversation_id) as alone, alone(), self._locked(conversation_id):
            yield await self._conversation(conversation_id, principal)

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
        async with self._in_line(parsed) as alone, alone():
            if not await self._locks.try_acquire(parsed):
                raise ConversationBusy(conversation_id)
            try:
                yield await self._conversation(parsed, principal)
            finally:
                await self._locks.release(parsed)

    async def look_at(self, conversation_id: ConversationId, principal: str) -> Conversation | None:
        """The conversation as storage has it or had it last, to be read only; None where the principal has none such.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        known = self._kept.get(conversation_id)
        if known is not None and known.is_committed:  # what could not be stored did not happen
            return known if known.principal == principal else None
        found = await self._conversations.get(conversation_id, principal)
        if found is not None and conversation_id not in self._queues:
            self._keep(found)
        return found

    async def accept(
        self, conversation_id: ConversationId, principal: str, send: Send, created: Conversation | None
    ) -> PendingSend | RecordedTurn:
        """Commit `send` as the last that waits, with `created` where it begins a conversation.

        Where its idempotency key is known already, nothing is committed, and what has the key is returned. Where it
        is cancelled, nothing is accepted.

        Raises:
            ConversationNotFound: it was deleted meanwhile.
            StorageUnavailable: nothing is accepted.
        """
        events = () if created is None else created.uncommitted_events
        holder = await self._locks.register()  # first, or others would take the send for a dead process's
        accepting = asyncio.create_task(self._conversations.accept(conversation_id, principal, holder, send, created))
        try:
            return await asyncio.shield(accepting)
        except asyncio.CancelledError:
            await asyncio.shield(self._take_back(accepting, send))
            raise
        finally:
            if created is not None and created.fence:
                self._publisher.publish(events)
                self._keep(created)

    async def adopt(self, pending: PendingSend) -> bool:
        """Wait here with a send whose process died; whether it was still there to be taken.

        Raises:
            StorageUnavailable: it cannot be taken.
        """
        if await self._any_waits((pending,), ()) or pending.id in self._waiting:  # by now, not before
            return False
        self._waiting.add(pending.id)  # before anybody here sees that it is this process's
        adopted = False
        try:
            adopted = await self._conversations.adopt(pending, self._locks.holder)
        finally:
            if not adopted:
                self._waiting.discard(pending.id)
        return adopted

    async def withdraw(self, pending: PendingSend) -> None:
        """Forget a send that is no turn yet: at once, or as soon as storage takes it.

        Until then whoever sends here delivers it first, and other processes, to whom its sender still waits, wait too.
        """
        try:
            await self._conversations.withdraw(pending)
        except StorageUnavailable:
            task = asyncio.create_task(self._withdraw_later(pending))
            self._withdrawing.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(self._withdrawing.discard)

    async def commit(self, conversation: Conversation) -> None:
        """Store what is new, publish what happened, and announce that the conversation has changed.

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
                self._changes.announce(f"{CONVERSATION_URI}{conversation.id}", conversation.principal)

    async def settle(self, conversation: Conversation) -> None:
        """Commit how something ended badly; a commit that fails must not hide why.

        What storage then still has as under way, a second cancellation's case too, the next send recovers.
        """
        with suppress(StorageUnavailable, ConversationBusy):
            await self.commit(conversation)

    async def _take_back(self, accepting: asyncio.Task[PendingSend | RecordedTurn], send: Send) -> None:
        """What was accepted although its sender had gone."""
        with suppress(ConversationNotFound, StorageUnavailable):
            accepted = await accepting
            if isinstance(accepted, PendingSend) and accepted.send is send:
                await self.withdraw(accepted)

    async def _withdraw_later(self, pending: PendingSend) -> None:
        pause = _LONGEST_WAIT
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            with suppress(StorageUnavailable):
                await self._conversations.withdraw(pending)
                return

    async def _any_waits(self, sends: Sequence[PendingSend], waiting: Collection[int]) -> bool:
        """Whether somebody waits with one of `sends`; in this process, those that are `waiting`."""
        for send in sends:
            elsewhere = send.holder != self._locks.holder
            if send.id in waiting or (elsewhere and await self._locks.lives(send.holder)):
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
    async def _in_line(
        self, conversation_id: ConversationId, number: int = 0
    ) -> AsyncGenerator[Callable[[], AbstractAsyncContextManager[None]]]:
        """In the line of this process, before those with a higher number; gives what to be alone in it.

        The queue goes with the last one who stands in it.
        """
        queue = self._queues.setdefault(conversation_id, _Queue())
        place = number, next(self._come)
        queue.places.append(place)
        try:
            yield lambda: queue.alone(place)
        finally:
            queue.places.remove(place)
            if not queue.places:
                del self._queues[conversation_id]
            await queue.tell()

    @asynccontextmanager
    async def _locked(self, conversation_id: ConversationId) -> AsyncGenerator[None]:
        """Alone among all processes."""
        wait = _SHORTEST_WAIT
        while not await self._locks.try_acquire(conversation_id):
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        try:
            yield
        finally:
            await self._locks.release(conversation_id)
