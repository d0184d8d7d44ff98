"""What the page tells readers of outcomes to do in SQL is right."""

import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cortex_stream.devstack.stack import Stack

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "operations" / "one-outcome.md"


@pytest.mark.parametrize(
    ("arriving", "answer"),
    [
        ([("a", "result"), ("a", "result")], ("a", "result", 0)),
        ([("a", "result"), ("a", "expired"), ("a", "dead_letter")], ("a", "result", 0)),
        ([("a", "expired"), ("a", "result")], ("a", "result", 1)),
        ([("a", "rejected"), ("a", "result")], ("a", "rejected", 0)),
        ([("a", "dead_letter"), ("redriven", "result")], ("redriven", "result", 1)),
        ([("a", "result"), ("b", "rejected")], ("a", "result", 0)),
        ([("a", "dead_letter"), ("redriven", "dead_letter")], ("redriven", "dead_letter", 1)),
    ],
)
async def test_the_answer_to_a_request_is_the_outcome_that_counts(
    stack: Stack, arriving: list[tuple[str, str]], answer: tuple[str, str, int]
) -> None:
    # given
    sql = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    create, insert, select = sql
    database = await asyncpg.connect(stack.postgres_url)
    try:
        await database.execute(create.replace("create table", "create temporary table"))

        # when
        for number, (outcome_id, kind) in enumerate(arriving):
            event: dict[str, Any] = {"id": outcome_id, "kind": kind, "number": number}
            await database.execute(insert, outcome_id, "request-1", kind, json.dumps(event))

        # then
        found = json.loads(await database.fetchval(select, "request-1"))
        assert (found["id"], found["kind"], found["number"]) == answer
    finally:
        await database.close()
