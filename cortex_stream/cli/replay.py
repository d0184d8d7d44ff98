"""`cortex-stream replay`: put requests that are still in Kafka back, beside the live ones.

Exit codes: 0 done, 1 failed or cancelled, 130 interrupted (the output says how to go on).
"""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from cortex_stream.cli.outcome_view import plain
from cortex_stream.cli.output import console, print_json
from cortex_stream.cli.principal import principal
from cortex_stream.cli.replay_bar import ReplayBar
from cortex_stream.cli.replay_report import WAIT_S, Wanted, write_report
from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.replay import cut_over as switching
from cortex_stream.replay import journal
from cortex_stream.replay.gate import parse_gate
from cortex_stream.replay.injection import Injection
from cortex_stream.replay.journal import Condition, Standing, find_replay, find_replay_or_none
from cortex_stream.replay.pace import parse_rate
from cortex_stream.replay.plan import ReplayPlan, State, check_replay_id, draft_plan
from cortex_stream.replay.selection import parse_filters
from cortex_stream.replay.survey import survey, with_ranges
from cortex_stream.settings.tree import Settings, load_settings
from schemas.priority import Lane, Priority
from topics.names import REPLAYS, RESULTS, request_topic

replay_app = typer.Typer(help="Put requests that are still in Kafka back, and compare the answers.")

_INTERRUPTED: Final = 130
_TOPICS: Final = [request_topic(Lane(priority)) for priority in Priority]
ReplayId = Annotated[str, typer.Argument(metavar="ID", help="The replay's id.")]
ReportTo = Annotated[
    Path, typer.Option(help="Folder for the report that a replay with --model ends with.")
]
WaitS = Annotated[float, typer.Option(min=0, help="The report waits so long for the next outcome.")]
CutOver = Annotated[
    bool,
    typer.Option(
        "--cut-over", help="If the report passes the gate: the model's name means this version now."
    ),
]
Gate = Annotated[
    list[str] | None,
    typer.Option(help="`figure=bound`, instead of the usual one; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


class PublishTo(StrEnum):
    """Where the outcomes go."""

    REPLAYS = "replays"
    LIVE = "live"


@replay_app.callback(invoke_without_command=True)
def replay(
    context: typer.Context,
    *,
    topic: Annotated[str | None, typer.Option(help="A request topic, without the prefix.")] = None,
    begin: Annotated[
        str,
        typer.Option(
            "--from", help="`earliest`, a time (2026-01-31T12:00:00Z), or `0:1500,1:900`."
        ),
    ] = "earliest",
    end: Annotated[
        str, typer.Option("--to", help="The same; what stands there is left.")
    ] = "latest",
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only requests of this type; repeatable.")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="`tenant|source|subject|id=value`; repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="`name@version` that answers instead of the one asked for.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Records a second, as `50/s`.")] = None,
    publish_to: Annotated[
        PublishTo, typer.Option(help="`live`: outcomes go to everybody. Needs --yes.")
    ] = PublishTo.REPLAYS,
    replay_id: Annotated[
        str | None, typer.Option("--id", help="The same id goes on where it stood.")
    ] = None,
    report_to: ReportTo = Path(),
    wait_s: WaitS = WAIT_S,
    cut_over: CutOver = False,
    gate: Gate = None,
    dry_run: Annotated[
        bool, typer.Option(help="Count what would be put back; do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, outcomes go to the live topic.")] = False,
) -> None:
    """Read requests that are still in Kafka and have them answered again, from idle capacity only.

    The workers' own offsets stay as they are. Outcomes carry the replay's id.
    """
    if context.invoked_subcommand is not None:
        return
    if topic not in _TOPICS:
        raise OperatorError(f"choosing --topic: wanted one of {', '.join(_TOPICS)}")
    name = check_replay_id(replay_id or f"replay-{secrets.token_hex(4)}")
    report = _wanted(report_to, wait_s, cut_over=cut_over, gate=gate)
    if cut_over:
        switching.name_and_version(model)
    draft = draft_plan(
        topic=topic,
        asked_from=begin,
        asked_to=end,
        types=tuple(sorted(types or ())),
        filters=parse_filters(filters or ()),
        model=model,
        rate_per_s=None if rate is None else parse_rate(rate),
        publish_to="results" if publish_to is PublishTo.LIVE else "replays",
        started_unix_ms=SystemClock().unix_ms(),
    )
    settings = load_settings()
    if dry_run:
        _interruptible(_count(settings, draft))
        return
    if publish_to is PublishTo.LIVE and not yes:
        raise OperatorError(
            "publishing to live: everybody who reads results would get these outcomes, too",
            repair="add --yes if that is meant, or leave --publish-to out",
        )
    going = _begin_or_go_on(settings, name, draft, report)
    _interruptible(going, replay_id=name)


@replay_app.command("resume")
def resume(
    replay_id: ReplayId,
    *,
    report_to: ReportTo = Path(),
    wait_s: WaitS = WAIT_S,
    cut_over: CutOver = False,
    gate: Gate = None,
) -> None:
    """Go on with a replay that was stopped, killed or cancelled."""
    report = _wanted(report_to, wait_s, cut_over=cut_over, gate=gate)
    _interruptible(_resume(load_settings(), replay_id, report), replay_id=replay_id)


@replay_app.command("report")
def report(
    replay_id: ReplayId,
    *,
    report_to: ReportTo = Path(),
    wait_s: WaitS = WAIT_S,
    cut_over: CutOver = False,
    gate: Gate = None,
) -> None:
    """Compare a replay's answers with those of then. Needs both still to be in Kafka."""
    wanted = _wanted(report_to, wait_s, cut_over=cut_over, gate=gate)
    _interruptible(_report(load_settings(), replay_id, wanted))


@replay_app.command("switch")
def switch(
    reference: Annotated[
        str, typer.Argument(metavar="NAME@VERSION", help="What the name means from now on.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, for every worker, unproven.")] = False,
) -> None:
    """Let a model's name mean a version at once, without a report: the way back from a cut-over."""
    switching.name_and_version(reference)
    if not yes:
        raise OperatorError(
            f"switching to {reference}: every request that names no version would get its answers",
            repair="add --yes if that is meant, or prove it first: cortex-stream replay --cut-over",
        )
    asyncio.run(_switch(load_settings(), reference, replay_id=None))


@replay_app.command("cancel")
def cancel(replay_id: ReplayId) -> None:
    """End a replay. A process that runs it, here or elsewhere, ends within seconds."""
    settings = load_settings()
    asyncio.run(_cancel(settings, replay_id))
    console().print(
        f"{replay_id} is cancelled; what was put back already will be answered."
        f" Go on after all: cortex-stream replay resume {replay_id}"
    )


@replay_app.command("list")
def list_replays(*, json: Json = False) -> None:
    """Show the replays of the last 7 days, newest first."""
    now_unix_ms = SystemClock().unix_ms()
    found = asyncio.run(journal.find_replays(load_settings()))
    if json:
        print_json({"replays": [_described(each, now_unix_ms) for each in found]})
        return
    table = Table("id", "topic", "state", "offsets read", "put back", "a second")
    for each in found:
        condition = each.condition(now_unix_ms=now_unix_ms)
        table.add_row(
            escape(each.replay_id),
            escape(each.plan.topic),
            condition.value,
            f"{each.done_offsets} of {each.plan.offsets}",
            str(each.put_back),
            f"{each.per_s:.0f}" if condition is Condition.RUNNING else "",
        )
    console().print(table if found else "no replays")


async def _count(settings: Settings, wanted: ReplayPlan) -> None:
    """Print what a replay would do."""
    stdout = console()
    plan = await with_ranges(settings, wanted, say=stdout.print)
    table = Table("partition", "from offset", "to before")
    for each in plan.ranges:
        table.add_row(*map(str, each))
    stdout.print(table if plan.ranges else "Nothing stands between these bounds.")
    found = await survey(settings, plan)
    stdout.print(
        f"{found.read} records read, {found.picked} would be put back"
        f" ({found.picked_bytes / 1e6:.1f} MB)"
    )
    if found.too_large:
        stdout.print(f"{found.too_large} are too large to be put back.")
    for request_type, records in sorted(found.types.items()):
        stdout.print(plain(f"  {request_type}: {records}"))
    if plan.rate_per_s is not None:
        stdout.print(f"At {plan.rate_per_s:g}/s: {found.picked / plan.rate_per_s:.0f} s or longer.")
    else:
        stdout.print("As fast as the workers have nothing else to do; --rate bounds it.")


async def _begin_or_go_on(
    settings: Settings, replay_id: str, draft: ReplayPlan, report: Wanted
) -> None:
    found = await find_replay_or_none(settings, replay_id)
    if found is None:
        plan = await with_ranges(settings, draft, say=console().print)
        if not plan.ranges:
            console().print("Nothing stands between these bounds.")
            if report.gate is not None:
                raise OperatorError("cutting over: nothing was replayed, so nothing is proven")
            return
        await _decide(settings, replay_id, plan, "begin", state="running")
        begun = Standing(replay_id, plan, {}, {}, plan.started_unix_ms, 0.0)
        await _run(settings, begun, report)
        return
    differences = found.plan.differences(draft)
    if differences:
        raise OperatorError(
            f"going on with {replay_id}: it was begun with another {', '.join(differences)}",
            repair=f"choose another --id, or go on as it was: cortex-stream replay resume {replay_id}",
        )
    if found.plan.state == "cancelled":
        raise OperatorError(
            f"going on with {replay_id}: it was cancelled",
            repair=f"cortex-stream replay resume {replay_id}, or choose another --id",
        )
    plan = found.plan.model_copy(update={"rate_per_s": draft.rate_per_s})
    await _run(settings, replace(found, plan=plan), report)


async def _resume(settings: Settings, replay_id: str, report: Wanted) -> None:
    found = await find_replay(settings, replay_id)
    if report.gate is not None:
        switching.name_and_version(found.plan.model)
    if found.plan.state == "cancelled":
        plan = found.plan.model_copy(update={"state": "running"})
        await _decide(settings, replay_id, plan, "resume", state="running")
        found = replace(found, plan=plan)
    await _run(settings, found, report)


async def _run(settings: Settings, standing: Standing, report: Wanted) -> None:
    """Put back what is left; with another model, compare the answers as well."""
    stdout, clock = console(), SystemClock()
    if standing.plan.state == "running":
        if standing.done_offsets:
            stdout.print(
                f"{standing.replay_id} goes on: {standing.done_offsets} of {standing.plan.offsets}"
                " offsets are read."
            )
        with ReplayBar(stdout, clock) as bar:
            injection = Injection(settings, standing, clock=clock, tell=bar.tell)
            standing = await injection.run()
        if injection.undecodable:
            stdout.print(f"{injection.undecodable} records cannot be decoded and were left out.")
        if injection.too_large:
            stdout.print(
                f"{injection.too_large} records are too large to be put back and were left out."
            )
    topic = settings.topic(RESULTS if standing.plan.publish_to == "results" else REPLAYS)
    stdout.print(
        f"{standing.replay_id} is finished: {standing.put_back} records put back. Their outcomes,"
        f" on {topic}, have the replay id {standing.replay_id}.",
        soft_wrap=True,
    )
    if standing.plan.model is not None:
        await _compare(settings, standing, report)


async def _report(settings: Settings, replay_id: str, wanted: Wanted) -> None:
    await _compare(settings, await find_replay(settings, replay_id), wanted)


async def _compare(settings: Settings, standing: Standing, wanted: Wanted) -> None:
    """Write the report; if a cut-over is wanted and it passes the gate, switch."""
    if wanted.gate is not None:
        switching.name_and_version(standing.plan.model)
    report = await write_report(settings, standing, wanted)
    if wanted.gate is None:
        return
    if not report.passed:
        failing = "; ".join(str(check) for check in report.gate if not check.passed)
        raise OperatorError(
            f"cutting over to {standing.plan.model}: the gate is closed, nothing was published:"
            f" {failing}",
            repair="read the report; what is acceptable after all: --gate figure=bound",
        )
    await _switch(settings, str(standing.plan.model), replay_id=standing.replay_id)


async def _switch(settings: Settings, reference: str, *, replay_id: str | None) -> None:
    await switching.cut_over(
        settings, reference, replay_id=replay_id, principal=principal(), clock=SystemClock()
    )
    name, _ = switching.name_and_version(reference)
    console().print(
        f"{name} means {reference} now, in every worker that serves it; their status pages say so.",
        soft_wrap=True,
    )


def _wanted(report_to: Path, wait_s: float, *, cut_over: bool, gate: list[str] | None) -> Wanted:
    if gate and not cut_over:
        raise OperatorError("reading --gate: it says when --cut-over may switch; add that")
    return Wanted(report_to, wait_s, parse_gate(gate or ()) if cut_over else None)


async def _cancel(settings: Settings, replay_id: str) -> None:
    found = await find_replay(settings, replay_id)
    if found.plan.state == "finished":
        raise OperatorError(f"cancelling {replay_id}: it is finished")
    await _decide(settings, replay_id, found.plan, "cancel", state="cancelled")


async def _decide(
    settings: Settings, replay_id: str, plan: ReplayPlan, action: str, *, state: State
) -> None:
    """Write down who does what, and only then do it."""
    await journal.audit(
        settings, replay_id, plan, action=action, principal=principal(), clock=SystemClock()
    )
    await journal.write_state(settings, replay_id, plan, state)


def _interruptible(work: Coroutine[Any, Any, None], *, replay_id: str | None = None) -> None:
    """Run `work` to its end; at Ctrl-C say how to go on."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        if replay_id is not None:
            typer.echo(f"interrupted; go on: cortex-stream replay resume {replay_id}", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _described(standing: Standing, now_unix_ms: int) -> dict[str, Any]:
    return {
        "id": standing.replay_id,
        "state": standing.condition(now_unix_ms=now_unix_ms).value,
        "offsets": standing.plan.offsets,
        "done_offsets": standing.done_offsets,
        "records": standing.put_back,
        "per_s": standing.per_s,
        "plan": standing.plan.model_dump(mode="json", exclude={"state"}),
    }
