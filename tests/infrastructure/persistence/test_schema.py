from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect

from tfo_mcp.infrastructure.persistence import audit_schema, migrations, schema
from tfo_mcp.infrastructure.persistence.migrations import AUDIT, STATE, History
from tfo_mcp.infrastructure.persistence.search import FTS_TABLE

HISTORIES = pytest.mark.parametrize("history", [STATE, AUDIT], ids=lambda history: history.folder)
METADATA = {STATE: schema.metadata, AUDIT: audit_schema.metadata}


def engine(folder: Path) -> Engine:
    return create_engine(f"sqlite:///{folder / 'tfo-mcp.db'}", connect_args={"isolation_level": None})


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether metadata can know it: SQLite's full-text index and the tables that it keeps itself in are no such."""
    return not (kind == "table" and name is not None and name.startswith(FTS_TABLE))


@HISTORIES
def test_the_known_revisions_are_alembics_in_its_order(history: History) -> None:
    folder = Path(migrations.__file__).parent
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder / history.folder))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [history.head]
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == history.revisions


@HISTORIES
def test_the_migrated_schema_is_the_one_that_the_program_uses(tmp_path: Path, history: History) -> None:
    with engine(tmp_path).begin() as connection:
        history.upgrade(connection)
        opts = {"compare_type": True, "include_name": is_ours}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, METADATA[history]) == []


def test_every_table_has_a_principal() -> None:
    for metadata in METADATA.values():
        assert {name for name, table in metadata.tables.items() if "principal" not in table.columns} == set()


@HISTORIES
def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, history: History) -> None:
    def interrupted() -> None:
        with engine(tmp_path).begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            history.upgrade(connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert inspect(engine(tmp_path)).get_table_names() == []
