"""The same answers whether one kind of workers hosts every stage, or several share the stages."""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from cortex_stream.devstack.stack import Stack
from tests.acceptance.system import System, WorkerProcess, until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

Kind = tuple[str, ...]
ALL: Final[Kind] = ("validation", "embedding", "inference")
SPLITS: Final = {
    "validation apart": (("validation",), ("embedding", "inference")),
    "inference apart": (("validation", "embedding"), ("inference",)),
}
EMBED, CLASSIFY = "cortex.nlp.embed.v1", "cortex.nlp.classify.v1"
LABELS: Final = ["sports", "finance", "cooking"]
NEWS: Final = ["The striker scored twice.", "Interest rates rose again."]
DUE: Final = {"time": "2020-01-01T00:00:00Z", "deadlinems": 50}

GOOD: Final[dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]]] = {
    "embed": ("medium", EMBED, {"texts": ["one", "another text"]}, {}),
    "float": ("low", EMBED, {"texts": ["one"], "encoding_format": "float"}, {"subject": "doc-1"}),
    "lowered": ("high", EMBED, {"texts": ["whenever"]}, {"priority": "low", "tenant": "acme"}),
    "classify": ("critical", CLASSIFY, {"texts": NEWS, "labels": LABELS}, {}),
    "multi": ("high", CLASSIFY, {"texts": NEWS, "labels": LABELS, "multi_label": True}, {}),
    "in-time": ("medium", CLASSIFY, {"texts": NEWS, "labels": LABELS}, {"deadlinems": 600_000}),
}
BAD: Final[dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]]] = {
    "unknown-type": ("medium", "cortex.nlp.sing.v1", {"texts": ["x"]}, {}),
    "unknown-model": ("medium", EMBED, {"texts": ["x"], "model": "nobody"}, {}),
    "no-texts": ("low", EMBED, {"texts": []}, {}),
    "no-labels": ("high", CLASSIFY, {"texts": ["x"]}, {}),  # found out by the embedding stage
    "late": ("critical", EMBED, {"texts": ["x"]}, DUE),
}
BROKEN: Final = b'{"id":"broken","type":"cortex.nlp.embed.v1","data":'


@asynccontextmanager
async def split_system(
    stack: Stack, models: Path, folder: Path, kinds: Sequence[Kind]
) -> AsyncIterator[System]:
    prefix = f"test-{secrets.token_hex(5)}"
    folder.mkdir()  # noqa: ASYNC240 (nothing else runs yet)
    system = System(stack.environment(), prefix=prefix, models=models, folder=folder)
    system.environment |= stages(kinds[0])
    # Alone in its batch, a text has the same vector in every run of the int8 model.
    system.environment["CORTEX_BATCHING__INVARIANCE"] = "strict"
    async with system:
        yield system


def stages(kind: Kind) -> dict[str, str]:
    return {"CORTEX_WORKER__STAGES": orjson.dumps(kind).decode()}


def start(system: System, kind: Kind) -> WorkerProcess:
    return system.start_worker(**stages(kind))


async def answers(system: System) -> dict[str, Any]:
    """Return what comes out for every request, less what differs from run to run."""
    pending = [
        await system.send(name, type_, data, lane=lane, **attributes)
        for name, (lane, type_, data, attributes) in (GOOD | BAD).items()
    ]
    await asyncio.gather(*pending)
    broken = await (await system.send_raw("cortex.requests.high", BROKEN, key=b"k"))
    system.sent["broken"] = broken
    await system.answered([*GOOD, *BAD, "broken"], timeout_s=40)
    await system.read_to_the_end()
    return {name: lasting(found) for name, found in system.outcomes.items()} | {
        f"letter {name}": letter for name, letter in letters(system).items()
    }


def lasting(found: list[dict[str, Any]]) -> dict[str, Any]:
    [outcome] = found  # exactly one: nothing was killed
    data = {key: value for key, value in outcome["data"].items() if key != "timings_ms"}
    if outcome["type"].endswith("expired.v1"):
        data["error"].pop("message")  # says by how much
    return {**{key: outcome[key] for key in ("id", "type", "subject")}, **data}


def letters(system: System) -> dict[str, Any]:
    """Return each dead letter by request, after checking that it leads to the source record."""
    found: dict[str, Any] = {}
    for record in system.records["cortex.dead-letters"]:
        headers = dict(record.headers)
        [name] = [
            name
            for name, place in system.sent.items()
            if (place.topic.encode(), str(place.partition).encode(), str(place.offset).encode())
            == tuple(
                headers[f"cortex_dlt-original-{part}"] for part in ("topic", "partition", "offset")
            )
        ]
        stays = ("code", "class", "stage", "attempts", "model", "message")
        found[name] = (record.key, record.value, [headers[f"cortex_dlt-{part}"] for part in stays])
    return found


def handed_over(worker: WorkerProcess) -> float:
    body = worker.get("/metrics")[1].decode()
    lines = [line for line in body.splitlines() if line.startswith("cortex_handovers_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="module")
def fused_answers() -> dict[str, Any]:
    """Holds the answers of fused workers once the first test has asked for them."""
    return {}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("split", SPLITS)
async def test_split_workers_answer_as_fused_ones_do(
    stack: Stack, models: Path, tmp_path: Path, split: str, fused_answers: dict[str, Any]
) -> None:
    # given
    if not fused_answers:
        async with split_system(stack, models, tmp_path / "fused", [ALL]) as system:
            start(system, ALL)
            fused_answers |= await answers(system)

    # when
    async with split_system(stack, models, tmp_path / "split", SPLITS[split]) as system:
        first, _ = [start(system, kind) for kind in SPLITS[split]]
        split_answers = await answers(system)

        # then
        assert handed_over(first) >= 3
    kinds = {name: split_answers[name]["type"].split(".")[2] for name in GOOD | BAD}
    assert kinds == dict.fromkeys(GOOD, "result") | dict.fromkeys(BAD, "rejected") | {
        "late": "expired"
    }
    assert split_answers.keys() == fused_answers.keys()
    for name, answer in fused_answers.items():
        assert split_answers[name] == answer, name


@pytest.mark.timeout(120)
async def test_split_workers_keep_deadlines_and_lose_nothing_when_killed(
    stack: Stack, models: Path, tmp_path: Path
) -> None:
    way_in, way_out = SPLITS["validation apart"]
    async with split_system(stack, models, tmp_path / "split", [way_in, way_out]) as system:
        # given: a request whose time runs out where nobody goes on with it
        first = await start(system, way_in).ready()
        await (await system.send("between", EMBED, {"texts": ["x"]}, deadlinems=1500))
        too_late_s = time.monotonic() + 1.5
        await until(lambda: handed_over(first) == 1, timeout_s=10, what=first.tail)
        await until(lambda: time.monotonic() > too_late_s, timeout_s=5, what=first.tail)

        # when
        second = await start(system, way_out).ready()

        # then
        late = await system.outcome("between")
        assert late["type"] == "cortex.outcome.expired.v1"
        assert late["data"]["timings_ms"]["total"] >= 1500

        # when: each kind is killed while work is on its way
        numbers = itertools.count()
        ids: list[str] = []
        victims = iter([(first, way_in), (second, way_out)])
        for _ in range(2):
            for number in itertools.islice(numbers, 150):
                ids.append(f"r{number}")
                lane = ("critical", "high", "medium", "low")[number % 4]
                data = {"texts": [f"text {number}"], "labels": LABELS}
                _ = await system.send(ids[-1], CLASSIFY, data, lane=lane)
            before = len(system.outcomes)
            await until(
                lambda before=before: len(system.outcomes) > before + 20,  # type: ignore[misc]
                timeout_s=30,
                what=lambda: "no outcomes",
            )
            victim, kind = next(victims)
            victim.kill()
            start(system, kind)
        await system.producer.flush()

        # then
        await system.answered(ids, timeout_s=60)
        await system.read_to_the_end()
        assert not system.conflicting()
