from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect

from tfo_mcp.infrastructure.persistence import migrations, schema


def engine(folder: Path) -> Engine:
    return create_engine(f"sqlite:///{folder / 'tfo-mcp.db'}", connect_args={"isolation_level": None})


def test_the_known_revisions_are_alembics_in_its_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrations.HEAD]
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == migrations.REVISIONS


def test_the_migrated_schema_is_the_one_that_the_program_uses(tmp_path: Path) -> None:
    with engine(tmp_path).begin() as connection:
        migrations.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_every_table_has_a_principal() -> None:
    assert {name for name, table in schema.metadata.tables.items() if "principal" not in table.columns} == set()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with engine(tmp_path).begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            migrations.upgrade(connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert inspect(engine(tmp_path)).get_table_names() == []
