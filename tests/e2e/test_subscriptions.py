"""Resources that clients follow: by `resources/subscribe`, or on 2026-07-28 by `subscriptions/listen`."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.claude import FakeClaude, fake_claude
from support.otlp import DEADLINE, free_port, receiving
from support.server import ENVELOPE, REVISIONS, STATELESS, Answer, Server, claude_at, eventually, serving
from support.sizes import later

HANDSHAKES = [REVISIONS[-2], *(later(revision) for revision in REVISIONS[:-2])]
BOTH = [REVISIONS[-2], STATELESS]

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"

NOBODYS = f"conversation://conv_{0:032x}"


@contextmanager
def serving_at(
    folder: Path, revision: str, script: str = "", *, env: Mapping[str, str] | None = None
) -> Generator[tuple[Server, FakeClaude]]:
    """A server whose conversations change, and the Claude who changes them."""
    with (
        fake_claude(script) as claude,
        serving(folder, env={**claude_at(claude.base_url), **(env or {})}) as server,
    ):
        server.begin(revision)
        yield server, claude


def say(server: Server, request_id: str, uri: str | None = None) -> str:
    """Change a conversation, or begin one; its URI."""
    known = {} if uri is None else {"conversation_id": uri.removeprefix("conversation://")}
    result = server.call_tool(request_id, "claude_conversation", {"message": "hello", **known})
    assert result["isError"] is False, result
    return f"conversation://{result['structuredContent']['conversation_id']}"


def state_of(server: Server, uri: str) -> str:
    """Of a conversation, as its resource says it."""
    (content,) = server.call("read", "resources/read", {"uri": uri})["result"]["contents"]
    return json.loads(content["text"])["state"]


def listen(server: Server, request_id: str, *uris: str) -> Answer:
    """Open a stream; what it is acknowledged to tell of."""
    server.request(request_id, "subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
    acknowledged = server.receive()
    assert (acknowledged["method"], acknowledged["params"]["_meta"]) == (ACKNOWLEDGED, {SUBSCRIPTION: request_id})
    return acknowledged["params"]["notifications"]


def follow(server: Server, *uris: str) -> None:
    """In the way of the server's revision."""
    if server.revision == STATELESS:
        assert listen(server, "stream", *uris) == {"resourceSubscriptions": list(uris)}
    else:
        for uri in uris:
            assert server.call("subscribe", "resources/subscribe", {"uri": uri})["result"] == {}


def cancel(server: Server, request_id: str) -> None:
    server.notify("notifications/cancelled", {"requestId": request_id})


def is_told(uri: str) -> Callable[[Answer], bool]:
    return lambda message: message.get("method") == UPDATED and message["params"]["uri"] == uri


def told(server: Server) -> list[str]:
    return [message["params"]["uri"] for message in server.received if message.get("method") == UPDATED]


def code_of(answer: Answer) -> int | None:
    return answer.get("error", {}).get("code")


# --- both eras ---


@pytest.mark.behaviour("resources.subscribe", "resources.subscribe.bounded")
@pytest.mark.parametrize("revision", [*HANDSHAKES, STATELESS])
def test_who_follows_a_conversation_is_told_of_its_first_change_and_of_its_last(tmp_path: Path, revision: str) -> None:
    with serving_at(tmp_path, revision) as (server, _):
        followed, other = say(server, "a"), say(server, "b")
        follow(server, followed)
        say(server, "other", other)
        assert told(server) == []
        say(server, "more", followed)
        assert told(server) == [followed]  # several commits, and it is not told of each
        last = server.wait_for(is_told(followed))
        assert last["params"].get("_meta") == ({SUBSCRIPTION: "stream"} if revision == STATELESS else None)
        assert "id" not in last
        server.ask_whether_alive()
        server.answer_to("alive")
        assert told(server) == [followed] * 2


@pytest.mark.behaviour("resources.subscribe")
@pytest.mark.parametrize("revision", [BOTH[0], later(BOTH[1])])
def test_a_conversation_that_is_closed_and_a_turn_that_is_cancelled_have_changed(tmp_path: Path, revision: str) -> None:
    with serving_at(tmp_path, revision, "replies: [{text: first}, {text: late, delay: 60}]") as (server, claude):
        uri = say(server, "a")
        follow(server, uri)
        params = {"message": "hi", "conversation_id": uri.removeprefix("conversation://")}
        server.request("late", "tools/call", {"name": "claude_conversation", "arguments": params})
        eventually(lambda: len(claude.requests()) == 2)
        server.wait_for(is_told(uri))
        assert state_of(server, uri) == "waiting"
        cancel(server, "late")
        server.wait_for(is_told(uri))
        assert state_of(server, uri) == "active"
        closed = server.call_tool("close", "close_conversation", {"conversation_id": params["conversation_id"]})
        assert closed["isError"] is False, closed
        server.wait_for(is_told(uri))
        assert state_of(server, uri) == "closed"


@pytest.mark.behaviour("resources.subscribe.limit")
@pytest.mark.parametrize("revision", BOTH)
def test_with_no_room_for_any_nothing_is_promised_and_the_methods_are_unknown(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, env={"TELEMETRYFLOW_MCP_MCP_MAX_SUBSCRIPTIONS": "0"}) as server:
        server.begin(revision)
        said = server.call(0, "server/discover")["result"] if revision == STATELESS else server.received[0]["result"]
        assert said["capabilities"]["resources"] == {"subscribe": False, "listChanged": False}
        for method in ("resources/subscribe", "resources/unsubscribe", "subscriptions/listen"):
            assert code_of(server.call(method, method, {"uri": "config://server", "notifications": {}})) == -32601


@pytest.mark.behaviour("resources.subscribe.bounded")
@pytest.mark.parametrize("revision", [BOTH[0], later(BOTH[1])])
def test_who_does_not_read_is_not_waited_for_and_is_told_once_when_it_reads_again(
    tmp_path: Path, revision: str
) -> None:
    late = ", ".join(["{text: late, delay: 1.1}"] * 3)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "long").write_text("x" * 50_000)
    env = {"TELEMETRYFLOW_MCP_MCP_WRITE_BUFFER": "1024"}
    with serving_at(tmp_path, revision, f"replies: [{{text: a}}, {late}]", env=env) as (server, claude):
        uri = say(server, "a")
        follow(server, uri)
        params = {"message": "hi", "conversation_id": uri.removeprefix("conversation://")}
        for turn in ("one", "two", "three"):
            server.request(turn, "tools/call", {"name": "claude_conversation", "arguments": params})
        for number in range(20):
            server.request(number, "tools/call", {"name": "read_file", "arguments": {"path": "long"}})
        eventually(lambda: [request["status"] for request in claude.requests()] == [200] * 4)
        server.answer_to("three")
        server.close_input()
        server.rest()
        # Of the first message, before all was full; and of all that came after it, once.
        assert 1 <= len(told(server)) <= 2
        assert {message["id"] for message in server.received if isinstance(message.get("id"), int)} >= set(range(20))


# --- revisions with a handshake ---


@pytest.mark.behaviour("resources.subscribe")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_who_unsubscribes_is_told_no_more(tmp_path: Path, revision: str) -> None:
    with serving_at(tmp_path, revision) as (server, _):
        left, kept = say(server, "a"), say(server, "b")
        follow(server, left, kept)
        say(server, "first", left)
        assert server.call("leave", "resources/unsubscribe", {"uri": left})["result"] == {}
        say(server, "second", left)
        say(server, "third", kept)
        server.wait_for(is_told(kept))  # which comes later than the other's would have come
        assert told(server) == [left, kept, kept]
        assert server.call("again", "resources/unsubscribe", {"uri": left})["result"] == {}


@pytest.mark.behaviour("resources.subscribe.refused")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_what_is_not_there_or_changes_unsaid_is_refused_and_what_never_changes_is_not(
    tmp_path: Path, revision: str
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "note").write_text("hello")
    unsaid = ("status://health", (tmp_path / "work" / "note").as_uri())
    unknown = ("nonsense", "config://other", NOBODYS, "conversation://")
    with serving(tmp_path) as server:
        server.begin(revision)
        for uri in unsaid:
            error = server.call("unsaid", "resources/subscribe", {"uri": uri})["error"]
            assert (error["code"], error["data"]) == (-32602, {"uri": uri})
            assert error["message"] == f"changes of {uri!r} are not announced: read it when you need it"
        for uri in unknown:
            read = server.call("read", "resources/read", {"uri": uri})["error"]
            assert server.call("subscribe", "resources/subscribe", {"uri": uri})["error"] == read
            assert read["code"] == -32602
        assert code_of(server.call("unsubscribe", "resources/unsubscribe", {"uri": "nonsense"})) == -32602
        assert code_of(server.call("malformed", "resources/subscribe", {"uri": 5})) == -32602
        assert server.call("never", "resources/subscribe", {"uri": "config://server"})["result"] == {}


@pytest.mark.behaviour("resources.subscribe.limit")
def test_a_client_subscribes_to_as_much_as_it_may(tmp_path: Path) -> None:
    with serving_at(tmp_path, REVISIONS[-2], env={"TELEMETRYFLOW_MCP_MCP_MAX_SUBSCRIPTIONS": "2"}) as (server, _):
        uris = [say(server, f"{number}") for number in range(3)]
        follow(server, *uris[:2])
        error = server.call("third", "resources/subscribe", {"uri": uris[2]})["error"]
        assert (error["code"], error["message"]) == (-32600, "too many subscriptions: at most 2 at a time")
        follow(server, uris[0])  # which it does already
        server.call("leave", "resources/unsubscribe", {"uri": uris[0]})
        follow(server, uris[2])


# --- 2026-07-28 ---


@pytest.mark.behaviour("resources.listen", "resources.subscribe.refused")
def test_a_stream_first_says_what_it_will_tell_of_and_nothing_else_of_what_was_asked(tmp_path: Path) -> None:
    with serving_at(tmp_path, STATELESS) as (server, _):
        uri = say(server, "a")
        assert listen(server, "some", uri, uri, "status://health", "nonsense", NOBODYS, "config://server") == {
            "resourceSubscriptions": [uri, "config://server"]
        }
        assert listen(server, "none", "nonsense") == {}
        lists = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
        server.request("lists", "subscriptions/listen", {"notifications": lists})
        assert server.receive()["params"] == {"_meta": {SUBSCRIPTION: "lists"}, "notifications": {}}
        assert code_of(server.call("malformed", "subscriptions/listen", {"notifications": 5})) == -32602


@pytest.mark.behaviour("resources.listen", "cancellation.no-answer")
def test_a_stream_that_is_cancelled_ends_without_an_answer_and_its_id_is_free(tmp_path: Path) -> None:
    with serving_at(tmp_path, STATELESS) as (server, _):
        uri = say(server, "a")
        listen(server, "one", uri)
        listen(server, "other", uri)
        assert code_of(server.call("one", "subscriptions/listen", {"notifications": {}})) == -32600
        cancel(server, "one")
        say(server, "more", uri)
        server.wait_for(is_told(uri))
        of_whom = [m["params"]["_meta"][SUBSCRIPTION] for m in server.received if m.get("method") == UPDATED]
        assert of_whom == ["other"] * 2
        assert listen(server, "one", uri) == {"resourceSubscriptions": [uri]}
        server.close_input()
        assert [message["id"] for message in server.rest()] == ["other", "one"]


@pytest.mark.behaviour("resources.listen.open")
def test_streams_fill_no_place_of_requests_in_flight(tmp_path: Path) -> None:
    env = {"TELEMETRYFLOW_MCP_MCP_MAX_REQUESTS_IN_FLIGHT": "1", "TELEMETRYFLOW_MCP_MCP_MAX_SUBSCRIPTIONS": "3"}
    with serving(tmp_path, env=env) as server:
        server.begin(STATELESS)
        for number in range(3):
            listen(server, f"stream {number}", "config://server")
            assert server.call_tool(f"call {number}", "echo", {"message": "on"})["isError"] is False
        for _ in range(3):
            refused = server.call("fourth", "subscriptions/listen", {"notifications": {}})
            assert refused["error"]["message"] == "too many subscriptions: at most 3 at a time"
            assert code_of(refused) == -32600
        cancel(server, "stream 1")
        assert server.call_tool("last", "echo", {"message": "on"})["isError"] is False
        listen(server, "fourth")


def close_input(server: Server) -> None:
    server.close_input()


def terminate(server: Server) -> None:
    server.process.terminate()


def shut_down(server: Server) -> None:
    server.request("end", "shutdown")


@pytest.mark.behaviour("resources.listen.end")
@pytest.mark.parametrize("end", [close_input, terminate, shut_down])
def test_at_the_end_each_stream_has_its_result_at_once(tmp_path: Path, end: Callable[[Server], None]) -> None:
    with serving_at(tmp_path, STATELESS) as (server, _):
        uri = say(server, "a")
        listen(server, "one", uri)
        listen(server, "other")
        end(server)
        results = {message["id"]: message["result"] for message in server.rest() if message["id"] != "end"}
        assert {name: result["_meta"][SUBSCRIPTION] for name, result in results.items()} == {
            "one": "one",
            "other": "other",
        }
        assert all(result["resultType"] == "complete" for result in results.values())
        assert server.wait() == 0
        assert "Traceback" not in server.log()


@pytest.mark.behaviour("resources.listen.end")
def test_a_stream_that_begins_as_the_input_ends_has_its_result_too(tmp_path: Path) -> None:
    with serving_at(tmp_path, STATELESS) as (server, _):
        uri = say(server, "a")  # storage is asked whether it is there, and the end comes meanwhile
        server.request("late", "subscriptions/listen", {"notifications": {"resourceSubscriptions": [uri]}})
        server.close_input()
        acknowledged, result = server.rest()
        assert (acknowledged["method"], result["id"]) == (ACKNOWLEDGED, "late")
        assert result["result"]["_meta"][SUBSCRIPTION] == "late"
        assert server.wait() == 0


@pytest.mark.behaviour("resources.listen.open")
def test_a_stream_is_recorded_once_when_it_ends(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(tmp_path, env=env) as server:
            server.begin(STATELESS)
            for name in ("cancelled", "ended"):
                listen(server, name, "config://server")
            cancel(server, "cancelled")
            assert receiver.wait_for(lambda: bool(receiver.spans()), DEADLINE)
            server.close_input()
            assert server.wait() == 0
        spans = [span for span in receiver.spans() if span["name"] == "subscriptions/listen"]
        assert [span["attributes"]["jsonrpc.request.id"] for span in spans] == ["cancelled", "ended"]
        assert all("mcp.resource.uri" not in span["attributes"] for span in spans)  # it may be many
        counted = [
            point.get("count", 0)
            for point in receiver.metrics()["mcp.server.operation.duration"]
            if point["attributes"]["mcp.method.name"] == "subscriptions/listen"
        ]
        assert sum(counted) == 2


@pytest.mark.behaviour("stateless.envelope.required")
def test_a_stream_needs_its_envelope_as_every_request_does(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin(STATELESS)
        meta = {name: value for name, value in ENVELOPE.items() if not name.endswith("Capabilities")}
        assert code_of(server.call(1, "subscriptions/listen", {"notifications": {}, "_meta": meta})) == -32602


# --- telemetry ---


@pytest.mark.behaviour("resources.subscribe", "telemetry.subscribed")
@pytest.mark.parametrize("revision", BOTH)
def test_who_follows_what_is_recorded_is_told_and_not_of_his_own_reading(tmp_path: Path, revision: str) -> None:
    summary, errors, health = "telemetry://tools/summary", "telemetry://errors/recent", "telemetry://health"
    with serving_at(tmp_path, revision) as (server, _):
        server.call_tool("before", "echo", {"message": "hello"})
        server.call_tool("settled", "telemetry_summary")
        follow(server, summary, errors, health)
        for uri in (summary, errors, health):
            server.call(uri, "resources/read", {"uri": uri})
        server.call_tool("settled again", "telemetry_summary")
        assert told(server) == []

        server.call_tool("works", "echo", {"message": "hello"})
        server.wait_for(is_told(summary))
        assert told(server) == [summary]
        server.call_tool("fails", "echo", {})
        server.wait_for(is_told(errors))


@pytest.mark.behaviour("resources.subscribe", "telemetry.subscribed")
@pytest.mark.parametrize("revision", BOTH)
def test_who_follows_the_health_of_telemetry_is_told_when_the_collector_fails(tmp_path: Path, revision: str) -> None:
    nobody = {"TELEMETRYFLOW_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with serving_at(tmp_path, revision, env=nobody) as (server, _):
        follow(server, "telemetry://health")
        server.call_tool("recorded", "echo", {"message": "hello"})
        server.wait_for(is_told("telemetry://health"))
        (content,) = server.call("health", "resources/read", {"uri": "telemetry://health"})["result"]["contents"]
        assert json.loads(content["text"])["status"] == "degraded"
