"""The manifest, the diagrams' arrows and the tests agree with each other, in every direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from interaction.behaviour import ID, complaints_about_source
from interaction.manifest import ALL, DIAGRAMS
from interaction.reference import PAGE, render
from interaction.shown import Claim, read_claims

BEHAVIOURS = {behaviour.id: behaviour for behaviour in ALL}

ARROWS = [arrow for arrows in DIAGRAMS.values() for arrow in arrows]

ARROWS_OF = {
    "Overview": 3,
    "Context Diagram": 5,
    "System Overview": 21,
    "Request Processing": 9,
    "Tool Execution": 13,
    "Claude Conversation": 11,
    "Telemetry Flow": 10,
    "Session State Machine": 15,
    "Conversation State Machine": 13,
    "Tool Execution State Machine": 14,
    "Telemetry Client State Machine": 12,
    "Complete MCP Session Flow": 24,
    "Claude API Integration Flow": 21,
    "Telemetry Recording Flow": 12,
    "Error Handling Flow": 23,
}
"""How many each diagram has: `A & B --> C` are two, and a chain has one between each two nodes."""


@pytest.fixture(scope="module")
def claims() -> Sequence[Claim]:
    return read_claims()


def repeated(values: Sequence[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]


# --- entries ---


def test_every_id_is_well_formed_and_stands_once() -> None:
    assert [behaviour.id for behaviour in ALL if not ID.fullmatch(behaviour.id)] == []
    assert repeated([behaviour.id for behaviour in ALL]) == []


def test_every_source_is_one_that_can_be_looked_up() -> None:
    diagrams = list(DIAGRAMS)
    wrong = {behaviour.id: complaints_about_source(behaviour.source, diagrams) for behaviour in ALL}
    assert {id_: complaints for id_, complaints in wrong.items() if complaints} == {}


def test_every_sentence_is_one_and_fits_a_table() -> None:
    for behaviour in ALL:
        assert behaviour.sentence.endswith("."), behaviour.id
        assert behaviour.sentence[0].isupper() or behaviour.sentence[0] == "`", behaviour.id
        assert not {"|", "\n"} & set(f"{behaviour.source}{behaviour.sentence}{behaviour.gap}"), behaviour.id
        assert behaviour.gap is None or behaviour.gap.strip(), behaviour.id
    assert repeated([behaviour.sentence for behaviour in ALL]) == []


# --- entries and tests ---


def test_every_entry_is_shown_by_a_test_or_is_a_gap_and_none_is_both(claims: Sequence[Claim]) -> None:
    shown = {id_ for test in claims for id_ in test.ids}
    assert [behaviour.id for behaviour in ALL if behaviour.gap is None and behaviour.id not in shown] == []
    assert [behaviour.id for behaviour in ALL if behaviour.gap is not None and behaviour.id in shown] == []


def test_every_id_that_a_test_names_is_an_entry(claims: Sequence[Claim]) -> None:
    assert [(test.file, test.name, id_) for test in claims for id_ in test.ids if id_ not in BEHAVIOURS] == []
    assert [(test.file, test.name) for test in claims if repeated(test.ids)] == []


def test_every_test_of_the_process_as_a_whole_shows_something(claims: Sequence[Claim]) -> None:
    whole = [test for test in claims if test.file.startswith(("e2e/", "interaction/"))]
    assert len(whole) > 60
    assert [
        (test.file, test.name) for test in whole if not test.ids and test.file != "interaction/test_manifest.py"
    ] == []


# --- arrows ---


def test_every_arrow_of_the_diagrams_is_there_once() -> None:
    assert {diagram: len(arrows) for diagram, arrows in DIAGRAMS.items()} == ARROWS_OF
    assert repeated([arrow.name for arrow in ARROWS]) == []
    assert [arrow.name for arrow in ARROWS if arrow.edge.count(" → ") != 1] == []


def test_every_arrow_is_shown_by_what_make_test_and_make_test_ci_run(claims: Sequence[Claim]) -> None:
    assert [arrow.name for arrow in ARROWS if not arrow.shown_by or repeated(arrow.shown_by)] == []
    assert [arrow.name for arrow in ARROWS if not BEHAVIOURS.keys() >= set(arrow.shown_by)] == []
    shown = {id_ for test in claims if "soak" not in test.marks for id_ in test.ids}
    assert [arrow.name for arrow in ARROWS if not shown >= set(arrow.shown_by)] == []


# --- the page ---


def test_the_page_is_what_make_docs_would_write(claims: Sequence[Claim]) -> None:
    assert PAGE.read_text(encoding="utf-8") == render(claims)


# --- the checker itself ---


@pytest.mark.parametrize(
    "source",
    [
        "",
        "somewhere",
        "diagrams: No Such Diagram",
        "MCP 2025-11-26 server/tools",
        "MCP 2025-11-25",
        "MCP 2025-11-25 Server/Tools",
        "SEP-x",
        "docs/no-such-page.md",
        "README.md, SECURITY.md",
    ],
)
def test_a_source_that_cannot_be_looked_up_is_found(source: str) -> None:
    assert complaints_about_source(source, list(DIAGRAMS))
    assert complaints_about_source(f"README.md; {source}", list(DIAGRAMS))


SOURCE = """
import pytest
pytestmark = [pytest.mark.soak]

@pytest.mark.behaviour("a.b", "a.c")
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.ci)])
def test_one(x): ...

@pytest.mark.ci
async def test_two(): ...

def helper(): ...
"""


def test_marks_are_read_from_the_source(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SOURCE)
    assert read_claims(tmp_path) == [
        Claim("test_it.py", "test_one", ("a.b", "a.c"), frozenset({"soak", "behaviour", "parametrize"})),
        Claim("test_it.py", "test_two", (), frozenset({"soak", "ci"})),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "pytestmark = pytest.mark.behaviour('a.b')",
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.behaviour('a.b'))])\ndef test_one(x): ...",
        "@pytest.mark.behaviour(ID)\ndef test_one(): ...",
        "@pytest.mark.behaviour('a.b')\ndef helper(): ...",
        "shows = pytest.mark.behaviour\n@shows('a.b')\ndef test_one(): ...",
    ],
)
def test_a_behaviour_that_is_named_in_another_way_is_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\n{code}\n")
    with pytest.raises(ValueError, match=r"test_it\.py.* names a behaviour"):
        read_claims(tmp_path)
