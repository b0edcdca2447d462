"""A Messages API on the loopback that answers at once, and knows when each request came.

Prints its endpoint; then answers each line of input with one of JSON: of each message since the last one, the second
in which its first byte was there, on the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

_TEXT = "x" * 1500
"""500 tokens, as tokens go."""

_USAGE = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [],
}
_EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**_MESSAGE, "stop_reason": None, "stop_sequence": None, "usage": _USAGE}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _TEXT}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 500},
    },
    {"type": "message_stop"},
]
_STREAM = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _EVENTS).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nRequest-Id: req_1\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_STREAM),
    _STREAM,
)
_ELSEWHERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
"""To whatever else is asked for, models above all: nothing is known of them."""


class Api:
    """What came."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []

    def serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            while received := connection.recv(1 << 16):
                came = time.perf_counter()
                while b"\r\n\r\n" not in received:
                    received += connection.recv(1 << 16)
                head, _, body = received.partition(b"\r\n\r\n")
                first, *headers = head.split(b"\r\n")
                size = sum(int(line[15:]) for line in headers if line.lower().startswith(b"content-length:"))
                left = size - len(body)
                while left > 0:
                    left -= len(connection.recv(1 << 20))
                if first.startswith(b"POST /v1/messages") and b"count_tokens" not in first:
                    self.arrivals.append(came)
                    connection.sendall(_ANSWER)
                else:
                    connection.sendall(_ELSEWHERE)


def main() -> None:
    api = Api()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=api.serve, args=(listener,), daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(api.arrivals), flush=True)
        api.arrivals.clear()


if __name__ == "__main__":
    main()
