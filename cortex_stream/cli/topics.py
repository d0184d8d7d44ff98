"""`cortex-stream topics`: compare the catalogue with a cluster, and bring the cluster up to it.

Exit codes: 0 all is well; 1 a conflict that people must settle, or `plan --check` found changes.
"""

import asyncio
import datetime as dt
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from cortex_stream.cli.output import console, print_json
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.plan import Plan
from cortex_stream.settings.tree import Settings, load_settings
from topics.catalogue import CATALOGUE, CURRENT, TopicSpec, needed_topics, replication

topics_app = typer.Typer(
    help="Compare the topic catalogue with the cluster, and create what is missing.",
    no_args_is_help=True,
)

_DIFFERS: Final = 1
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@topics_app.command("list")
def list_topics(*, json: Json = False) -> None:
    """Show the topics that this system needs (with --json: the whole catalogue). Needs no broker."""
    settings = load_settings()
    if json:
        print_json({"topics": [_described(spec, settings) for spec in CATALOGUE]})
        return
    table = Table("topic", "direction", "partitions", "kept")
    needed = needed_topics(split=settings.worker.split)
    for spec in needed:
        name = escape(settings.topic(spec.name))
        partitions = str(spec.partitions(settings.kafka.profile))
        table.add_row(name, spec.direction.value, partitions, kept(spec))
    console().print(table)
    if len(needed) < len(CURRENT):
        console().print(f"{len(CURRENT) - len(needed)} more join them where stages are split.")
    console().print(
        f"{len(CATALOGUE) - len(CURRENT)} more belong to later releases: docs/reference/topics.md"
    )


@topics_app.command("plan")
def plan_topics(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when something would be changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what `apply` would change. Changes nothing; exits with 1 on a conflict."""
    plan = asyncio.run(_plan(load_settings()))
    _show(plan, json=json, applied=False)
    if plan.conflicts or (check and plan.changes):
        raise typer.Exit(_DIFFERS)


@topics_app.command("apply")
def apply_topics(*, json: Json = False) -> None:
    """Create missing topics, mend settings, add partitions. Deletes nothing, asks nothing.

    Does nothing when nothing differs; exits with 1 when a conflict remains.
    """
    plan = asyncio.run(_apply(load_settings()))
    _show(plan, json=json, applied=True)
    if plan.conflicts:
        raise typer.Exit(_DIFFERS)


def kept(spec: TopicSpec) -> str:
    """Return for how long records are kept, for people."""
    if spec.retention_ms is None:
        return "newest per key"
    days = dt.timedelta(milliseconds=spec.retention_ms).days
    return f"{days} d, newest per key" if "compact" in spec.cleanup_policy else f"{days} d"


async def _plan(settings: Settings) -> Plan:
    async with TopicAdmin(settings) as admin:
        return await admin.plan()


async def _apply(settings: Settings) -> Plan:
    """Return the plan as it was before it was carried out."""
    async with TopicAdmin(settings) as admin:
        plan = await admin.plan()
        await admin.apply(plan.changes)
    return plan


def _show(plan: Plan, *, json: bool, applied: bool) -> None:
    if json:
        print_json(
            {
                "applied": applied,
                "changes": [
                    {"topic": change.name, "change": type(change).__name__, "text": str(change)}
                    for change in plan.changes
                ],
                "conflicts": [
                    {"topic": conflict.name, "text": conflict.text} for conflict in plan.conflicts
                ],
            }
        )
        return
    stdout = console()
    if not plan.changes and not plan.conflicts:
        stdout.print("The cluster's topics are what the catalogue says.")
        return
    table = Table("topic", "done" if applied else "to do")
    for change in plan.changes:
        table.add_row(escape(change.name), escape(str(change)))
    for conflict in plan.conflicts:
        table.add_row(escape(conflict.name), f"[red]conflict:[/] {escape(conflict.text)}")
    stdout.print(table)
    if plan.changes and not applied:
        stdout.print("Carry it out with: cortex-stream topics apply")


def _described(spec: TopicSpec, settings: Settings) -> dict[str, Any]:
    profile = settings.kafka.profile
    return {
        "name": settings.topic(spec.name),
        "direction": spec.direction.value,
        "key": spec.key,
        "holds": spec.holds,
        "written_by": spec.written_by,
        "messages": spec.messages,
        "partitions": spec.partitions(profile),
        "replication": replication(profile),
        "config": spec.config(profile),
        "split": spec.split,
        "planned": spec.planned,
    }
