from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from differential.ours import HELLO, InProcess
from support.server import serving
from tfo_mcp.domain.health import HealthStatus
from tfo_mcp.presentation.prompts import SERVER_PROMPTS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "resources-and-prompts.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = REFERENCE.read_text("utf-8").partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_the_reference_names_every_resource_and_template_and_no_other() -> None:
    async def listed() -> list[str]:
        ours = InProcess()
        asked = [
            json.dumps({"jsonrpc": "2.0", "id": method, "method": method}).encode()
            for method in ("resources/list", "resources/templates/list")
        ]
        answers = {answer["id"]: answer["result"] for answer in await ours.exchange((HELLO, *asked), 3)}
        resources = [item["uri"] for item in answers["resources/list"]["resources"]]
        templates = [item["uriTemplate"] for item in answers["resources/templates/list"]["resourceTemplates"]]
        return resources + templates

    assert [row[0].strip("`") for row in rows("## Resources")] == asyncio.run(listed())


def test_the_reference_names_every_prompt_with_its_arguments() -> None:
    described = [
        [
            f"`{prompt.name}`",
            ", ".join(f"**`{each.name}`**" if each.required else f"`{each.name}`" for each in prompt.arguments),
        ]
        for prompt in SERVER_PROMPTS
    ]
    assert rows("## Prompts") == described


def test_the_reference_names_every_component_of_health(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        read = server.call(1, "resources/read", {"uri": "status://health"})["result"]
    measured = json.loads(read["contents"][0]["text"])["components"]
    assert [row[0].strip("`") for row in rows("### What `status://health` says")] == list(measured)


def test_the_reference_knows_the_words_of_health() -> None:
    text = REFERENCE.read_text("utf-8").partition("### What `status://health` says")[2]
    assert all(status.value in text for status in HealthStatus if status is not HealthStatus.HEALTHY)
