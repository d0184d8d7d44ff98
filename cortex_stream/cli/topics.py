"""`cortex-stream topics`: compare the catalogue with a cluster, and bring the cluster up to it.

Exit codes: 0 all is well; 1 a conflict that people must settle, or `plan --check` found changes.
"""

import asyncio
import datetime as dt
from dataclasses import replace
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
Reset = Annotated[
    bool,
    typer.Option(
        "--reset",
        help="Also take back what was chosen by hand on a topic: how long it keeps records, and"
        " which times of records it takes. Shortening deletes records.",
    ),
]
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
    reset: Reset = False,
    json: Json = False,
) -> None:
    """Show what `apply` would change. Changes nothing.

    Exit codes: 0 shown; 1 a conflict that people must settle, or, with
    --check, something to change.
    """
    plan = asyncio.run(_plan(load_settings(), reset=reset))
    _show(plan, json=json, applied=False)
    if plan.conflicts or (check and plan.changes):
        raise typer.Exit(_DIFFERS)


@topics_app.command("apply")
def apply_topics(*, reset: Reset = False, json: Json = False) -> None:
    """Create missing topics, mend settings, add partitions. Deletes nothing, asks nothing.

    A retention that was chosen on the topic stays as it is. Does nothing
    when nothing differs.

    Exit codes: 0 all is well; 1 failed, or a conflict that people must settle.
    """
    plan = asyncio.run(_apply(load_settings(), reset=reset))
    _show(plan, json=json, applied=True)
    if plan.conflicts:
        raise typer.Exit(_DIFFERS)


def kept(spec: TopicSpec) -> str:
    """Return for how long records are kept, for people."""
    if spec.retention_ms is None:
        return "newest per key"
    days = dt.timedelta(milliseconds=spec.retention_ms).days
    return f"{days} d, newest per key" if "compact" in spec.cleanup_policy else f"{days} d"


async def _plan(settings: Settings, *, reset: bool) -> Plan:
    async with TopicAdmin(settings) as admin:
        return await admin.plan(reset=reset)


async def _apply(settings: Settings, *, reset: bool) -> Plan:
    """Return the plan as it was before it was carried out, and what the brokers did not know."""
    async with TopicAdmin(settings) as admin:
        plan = await admin.plan(reset=reset)
        await admin.apply(plan.changes)
        return replace(plan, unknown=(await admin.plan()).unknown)


def _show(plan: Plan, *, json: bool, applied: bool) -> None:
    if json:
        print_json(
            {
                "applied": applied,
                "changes": [
                    {"topic": change.name, "change": type(change).__name__, "text": str(change)}
                    for change in plan.changes
                ],
                "chosen": [{"topic": chosen.name, "text": str(chosen)} for chosen in plan.chosen],
                "conflicts": [
                    {"topic": conflict.name, "text": conflict.text} for conflict in plan.conflicts
                ],
                "unknown": sorted(plan.unknown),
            }
        )
        return
    stdout = console()
    if plan.unknown:
        stdout.print(
            f"These brokers are older than Kafka 3.6 and do not know {', '.join(sorted(plan.unknown))}:"
            " records older than their topic keeps are taken there, and deleted without a word."
        )
    if not plan.changes and not plan.chosen and not plan.conflicts:
        stdout.print("The cluster's topics are what the catalogue says.")
        return
    table = Table("topic", "done" if applied else "to do")
    for change in plan.changes:
        table.add_row(escape(change.name), escape(str(change)))
    for chosen in plan.chosen:
        table.add_row(escape(chosen.name), f"left as it is: {escape(str(chosen))}")
    for conflict in plan.conflicts:
        table.add_row(escape(conflict.name), f"[red]conflict:[/] {escape(conflict.text)}")
    stdout.print(table)
    if plan.chosen:
        stdout.print("What was chosen on a topic stays; to take it back, add --reset.")
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
