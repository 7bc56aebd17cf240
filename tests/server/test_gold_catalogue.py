"""The catalogue of gold is the database's own comments: whole, and the same on paper."""

import json
import re
from pathlib import Path

import psycopg
from programs import scout_server

from server.database import SQL
from server.gold import catalogue, markdown

PAGE = Path(__file__).parents[2] / "docs" / "gold.md"


def test_every_relation_names_its_grain(connection: psycopg.Connection) -> None:
    """Views, tables and dimensions, each with a sentence of what one row is."""
    relations = catalogue(connection)
    there = connection.execute(
        """
        select table_schema || '.' || table_name from information_schema.tables
        where table_schema = 'scout' and (table_name like 'gold\\_%' or table_name like 'dim\\_%')
            or table_schema = 'scout_gold'
        union
        select schemaname || '.' || matviewname from pg_matviews
        """
    ).fetchall()

    names = {f"{relation.schema}.{relation.name}" for relation in relations}
    assert names == {name for (name,) in there}
    assert len([name for name in names if name.startswith("scout.gold_")]) >= 38
    assert len([name for name in names if name.startswith("scout.dim_")]) >= 6
    grains = {relation.name: relation.grain for relation in relations}
    assert {name: grain for name, grain in grains.items() if not re.match(r"One row( per |, always\.)", grain)} == {}
    only_grain = [relation.name for relation in relations if relation.meaning == relation.grain]
    assert [name for name in only_grain if not name.startswith("dim_")] == []


def test_every_column_of_gold_is_described(connection: psycopg.Connection) -> None:
    """With its unit, where it has one: percent of what, pesos, seconds."""
    columns = [
        (f"{relation.name}.{column.name}", column.meaning)
        for relation in catalogue(connection)
        if relation.name.startswith("gold_")
        for column in relation.columns
    ]

    assert len(columns) > 300
    assert [name for name, meaning in columns if not meaning] == []
    money = [(name, said) for name, said in columns if re.search(r"(\.|_)(revenue|average_sale|average_price)$", name)]
    assert len(money) > 50
    assert [name for name, said in money if "peso" not in said.lower()] == []


def test_the_page_says_what_the_database_says(connection: psycopg.Connection) -> None:
    """`make gold-catalogue` writes it anew when a model's comment has changed."""
    relations = catalogue(connection)
    page = PAGE.read_text(encoding="utf-8")

    assert page == markdown(relations)
    for relation in relations:
        section = page.split(f"\n## {relation.schema}.{relation.name}\n")[1].split("\n## ")[0]
        assert section.count("\n| `") == len(relation.columns) > 0


def test_the_command_lists_every_relation_and_column(database_url: str, connection: psycopg.Connection) -> None:
    """In words, as JSON and as the page."""
    relations = catalogue(connection)
    words, listed, page = (
        scout_server("gold", "list", "--database-url", database_url, *options)
        for options in ([], ["--json"], ["--markdown"])
    )

    assert page.stdout == markdown(relations)
    assert {(one["schema"], one["name"], one["grain"], len(one["columns"])) for one in json.loads(listed.stdout)} == {
        (relation.schema, relation.name, relation.grain, len(relation.columns)) for relation in relations
    }
    for relation in relations:
        section = words.stdout.split(f"{relation.schema}.{relation.name} ({relation.kind})\n")[1].split("\n\n")[0]
        assert relation.grain in " ".join(section.split())
        assert [column.name for column in relation.columns if f"\n    {column.name} " not in section] == []


def test_the_grain_of_every_view_is_checked(connection: psycopg.Connection) -> None:
    """A new view without its line in `checks/gold_grain.sql` fails here."""
    checked = (SQL / "checks" / "gold_grain.sql").read_text()
    views = [
        relation.name
        for relation in catalogue(connection)
        if relation.schema == "scout" and relation.name.startswith("gold_")
    ]

    assert len(views) >= 38
    assert [view for view in views if f"from scout.{view} " not in checked] == []
