"""`make bench`: every scenario, every peer, in one run. See README.md beside this file."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from harness.contest import Result, again, hold
from harness.errors import WrongAnswer
from harness.peer import FOLDER, Field, gather, known_modules
from harness.report import as_json, table, write
from harness.scale import FULL, QUICK, SMOKE
from harness.surroundings import surroundings

_MEASUREMENTS = FOLDER.parent / "docs" / "measurements"


def _scenarios() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "scenarios").glob("*.py"))


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds; nothing is kept unless --out says where.")
@click.option("--smoke", is_flag=True, help="Only to see whether it runs.")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(_scenarios()), help="Only this.")
@click.option(
    "--peers",
    multiple=True,
    type=click.Choice(list(known_modules())),
    help="Only these, the first of which is compared with all.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where the JSON goes.")
def main(*, quick: bool, smoke: bool, scenarios: tuple[str, ...], peers: tuple[str, ...], out: Path | None) -> None:
    """Measure this server beside others, in one run."""
    if sys.platform != "linux":
        raise click.ClickException("the benchmarks read CPU and memory from Linux's /proc")
    found = gather(peers or tuple(known_modules()))
    first, *others = found.peers
    taking_part = Field([first, again(first), *others], found.absent)
    for name, why in found.absent.items():
        print(f"not taking part: {name}, {why}\n")
    size = SMOKE if smoke else QUICK if quick else FULL
    target = out or (_MEASUREMENTS if size is FULL else None)
    with surroundings() as around:
        for scenario in scenarios or _scenarios():
            results: list[Result] = []
            for contest in import_module(f"scenarios.{scenario}").contests(size):
                try:
                    results.append(hold(contest, taking_part.peers, around))
                except WrongAnswer as why:
                    raise click.ClickException(str(why)) from why
                print(*table(results[-1]), sep="\n", flush=True)
            if target is not None:
                write(target / f"bench-{scenario.replace('_', '-')}.json", as_json(scenario, taking_part, results))


if __name__ == "__main__":
    main()
