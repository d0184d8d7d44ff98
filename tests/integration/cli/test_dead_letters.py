"""`dead-letters` on a real Kafka, where no worker interferes."""

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import Result

from cortex_stream.clock import SystemClock
from cortex_stream.dead_letters.letter import Letter
from cortex_stream.delivery.dead_letter import Failure, dead_letter
from cortex_stream.engine.handover import read_arrival
from cortex_stream.errors import BrokerUnavailable, CortexError, InvalidField, StuckRun
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.settings.tree import Settings, load_settings
from schemas.audit import AuditRecord
from schemas.priority import Lane
from topics.names import AUDIT, VALIDATION, request_topic, stage_topic

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("environment")]

Run = Callable[..., Result]
PUT_BACK = stage_topic(VALIDATION, Lane.HIGH)


async def produce(*records: OutgoingRecord) -> None:
    producer = KafkaProducer(load_settings())
    await producer.start()
    try:
        await producer.send(*records)
    finally:
        await producer.stop()


async def read(topic: str) -> list[ReadRecord]:
    async with TopicReader(load_settings(), [topic]) as reader:
        return [record async for record in reader.to_end()]


def request(request_id: str, tenant: str, texts: Sequence[object] = ("a",)) -> bytes:
    event = {"id": request_id, "type": "cortex.nlp.embed.v1", "tenant": tenant}
    return orjson.dumps({**event, "data": {"texts": list(texts)}})


def letter(
    value: bytes,
    *,
    error: CortexError | None = None,
    topic: str = request_topic(Lane.HIGH),
    offset: int = 7,
    timestamp_ms: int = 1_600_000_000_000,
    redrives: int = 0,
    copy: bool = True,
    headers: Sequence[tuple[str, bytes | None]] = (("trace", b"\x00\xff"), ("empty", None)),
) -> OutgoingRecord:
    source = RecordSource(
        load_settings().topic(topic), 0, offset, timestamp_ms, 0.0, key=b"k\xff", headers=headers
    )
    failure = Failure(
        error or InvalidField("data.texts: \x1b[31mwrong"), "validation", 1, "w-0", None, 1, 2,
        redrives,
    )  # fmt: skip
    return dead_letter(value, source, failure, max_message_bytes=8192, copy=copy)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(run: Run, tenant: str) -> dict[str, str]:
    """Return the letters of a tenant by request id, as the list names them."""
    found = lines(run("dead-letters", "list", "--tenant", tenant, "--json"))
    return {each["request_id"]: each["letter"] for each in found}


def put_back(request_ids: Sequence[str]) -> list[ReadRecord]:
    wanted = set(request_ids)
    found = asyncio.run(read(PUT_BACK))
    return [record for record in found if json.loads(record.value or b"{}").get("id") in wanted]


def audit_of(request_id: str) -> list[AuditRecord]:
    found = [
        AuditRecord.model_validate_json(each.value or b"") for each in asyncio.run(read(AUDIT))
    ]
    return [each for each in found if each.details["request_id"] == request_id]


def test_letters_are_listed_newest_first_and_chosen_by_what_they_are(run: Run) -> None:
    asyncio.run(
        produce(
            *(letter(request(f"list-{n}", "list")) for n in range(3)),
            letter(request("list-stuck", "list"), error=StuckRun("too slow")),
            letter(request("list-low", "list"), topic=request_topic(Lane.LOW)),
        )
    )

    listed = lines(run("dead-letters", "list", "--tenant", "list", "--json"))
    assert [each["request_id"] for each in listed] == [
        "list-low", "list-stuck", "list-2", "list-1", "list-0",
    ]  # fmt: skip
    by_code = run("dead-letters", "list", "--tenant", "list", "--code", "stuck_run", "--json")
    by_topic = run("dead-letters", "list", "--topic", "cortex.requests.low", "--json")
    newest = run("dead-letters", "list", "--tenant", "list", "--limit", "1", "--json")
    recent = run("dead-letters", "list", "--tenant", "list", "--since", "1h", "--json")
    before = run("dead-letters", "list", "--tenant", "list", "--until", "1h", "--json")
    future = run("dead-letters", "list", "--tenant", "list", "--since", "2999-01-01", "--json")
    assert [each["request_id"] for each in lines(by_code)] == ["list-stuck"]
    assert [each["request_id"] for each in lines(by_topic)] == ["list-low"]
    assert [each["request_id"] for each in lines(newest)] == ["list-low"]
    assert len(lines(recent)) == 5
    assert lines(before) == lines(future) == []


def test_the_list_for_people_fits_80_columns(run: Run) -> None:
    asyncio.run(produce(letter(request("\u202e" + "x" * 80, "columns"))))

    result = run("dead-letters", "list", "--tenant", "columns")
    wide = run("dead-letters", "list", "--tenant", "columns", env={"COLUMNS": "200"})
    none = run("dead-letters", "list", "--tenant", "nobody")

    assert "invalid_field" in result.stdout
    assert "\u202e" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "x" * 60 in wide.stdout
    assert none.stdout == "no dead letters\n"


def test_one_letter_is_shown_whole_and_commands_no_terminal(run: Run) -> None:
    asyncio.run(produce(letter(request("show-1", "show"))))
    name = names(run, "show")["show-1"]

    shown = run("dead-letters", "show", name)
    as_json = lines(run("dead-letters", "show", name, "--json"))

    assert shown.exit_code == 0
    for part in ("invalid_field", "show-1", '"texts": [', "\\u0000\\xff", f"redrive {name} --yes"):
        assert part in shown.stdout, part
    assert "\x1b" not in shown.stdout
    assert base64.b64decode(as_json[0]["value"]) == request("show-1", "show")


@pytest.mark.parametrize("name", ["7:1", "0:999999"])
def test_a_letter_that_is_not_there_is_named_with_the_command_that_finds_others(
    run: Run, name: str
) -> None:
    result = run("dead-letters", "show", name)

    assert result.exit_code == 1
    assert f"dead letter {name}: there is none" in result.stderr
    assert "repair: cortex-stream dead-letters list" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("show", "42"),
        ("list", "--since", "yesterday"),
        ("redrive",),
        ("redrive", "--yes"),
        ("redrive", "0:1", "0:2", "--edit"),
        ("redrive", "--all", "--edit"),
        ("redrive", "--all", "--rate", "0"),
    ],
)
def test_wrong_usage_reads_nothing_and_sends_nothing(run: Run, words: Sequence[str]) -> None:
    assert run("dead-letters", *words).exit_code == 2


def test_an_export_holds_every_byte(run: Run, tmp_path: Path) -> None:
    value = b"\x00\xffno json"
    asyncio.run(produce(letter(value, error=StuckRun("exported")), letter(value)))
    file = tmp_path / "letters.jsonl"

    written = run("dead-letters", "export", "--code", "stuck_run", "--since", "1h", "-o", str(file))
    to_stdout = run("dead-letters", "export", "--code", "stuck_run")
    onto_it = run("dead-letters", "export", "-o", str(file))

    assert written.exit_code == 0, written.output
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert value in [base64.b64decode(each["value"]) for each in exported]
    assert base64.b64decode(exported[-1]["key"]) == b"k\xff"
    assert exported[-1]["headers"] == [["trace", "AP8="], ["empty", None]]
    assert lines(to_stdout) == exported
    assert onto_it.exit_code == 1
    assert "File exists" in onto_it.stderr
    assert "name a file that does not" in onto_it.stderr


def test_an_export_that_was_cut_off_looks_not_whole_and_is_no_obstacle(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(produce(*(letter(request(f"export-{n}", "export")) for n in range(2))))
    file = tmp_path / "letters.jsonl"
    export = ("dead-letters", "export", "--tenant", "export", "-o", str(file))
    given = iter(range(1))

    async def unreachable(_settings: Settings, whole: Letter) -> Letter:
        if next(given, None) is None:
            raise BrokerUnavailable("reading cortex.requests.low: no leader")
        return whole

    with monkeypatch.context() as broken:
        broken.setattr("cortex_stream.cli.dead_letters.with_payload", unreachable)
        cut = run(*export)
        there = file.exists()
    again = run(*export)

    assert cut.exit_code == 1
    assert "no leader" in cut.stderr
    assert not there
    assert again.exit_code == 0, again.output
    assert len(file.read_text().splitlines()) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["letters.jsonl"]


def test_a_dry_run_says_what_would_be_sent_and_changes_nothing(run: Run) -> None:
    asyncio.run(produce(letter(request("dry-1", "dry")), letter(request("dry-2", "dry"))))

    result = run("dead-letters", "redrive", "--tenant", "dry")
    told = lines(run("dead-letters", "redrive", "--tenant", "dry", "--json"))

    assert result.stdout == "2 letters would be put back; send with --yes\n"
    assert [each["redrive"] for each in told] == ["dry_run", "dry_run"]
    assert put_back(["dry-1", "dry-2"]) == []
    assert audit_of("dry-1") == []
    assert {
        each["redriven"] for each in lines(run("dead-letters", "list", "--tenant", "dry", "--json"))
    } == {"no"}


def test_redriven_letters_are_put_back_byte_for_byte_each_with_a_replay_id_of_its_own(
    run: Run,
) -> None:
    asyncio.run(produce(*(letter(request(f"all-{n}", "all")) for n in range(12))))

    result = run("dead-letters", "redrive", "--tenant", "all", "--yes", "--rate", "1000")

    assert result.stdout == "12 letters put back\n"
    records = put_back([f"all-{n}" for n in range(12)])
    assert len(records) == 12
    replay_ids = set()
    for record in records:
        source = RecordSource(
            record.topic, 0, record.offset, record.timestamp_ms, 1.0, Lane.HIGH, record.key,
            record.headers, VALIDATION,
        )  # fmt: skip
        arrival = read_arrival(source, now_s=1.0, now_unix_ms=record.timestamp_ms)
        assert arrival.reinjection is not None
        replay_ids.add(arrival.reinjection.replay_id)
        assert record.key == b"k\xff"
        assert arrival.origin.headers == (("trace", b"\x00\xff"), ("empty", None))
        assert (arrival.origin.offset, arrival.origin.timestamp_ms) == (7, 1_600_000_000_000)
    assert len(replay_ids) == 12
    listed = lines(run("dead-letters", "list", "--tenant", "all", "--json"))
    assert {each["redriven"] for each in listed} == {"once"}


def test_a_letter_that_was_redriven_is_left_alone_until_it_is_asked_for_again(run: Run) -> None:
    asyncio.run(produce(letter(request("twice", "twice"))))
    name = names(run, "twice")["twice"]

    first = run("dead-letters", "redrive", name, "--yes")
    second = run("dead-letters", "redrive", name, "--yes")
    third = run("dead-letters", "redrive", name, "--yes", "--again")

    assert first.exit_code == 0
    assert "cortex-stream results --id twice" in first.stdout
    assert second.exit_code == 1
    assert "1 left alone: redriven" in second.stdout
    assert third.exit_code == 0
    assert len(put_back(["twice"])) == 2
    replay_ids = [each.details["replay_id"] for each in audit_of("twice")]
    assert len(replay_ids) == 4
    assert len(set(replay_ids)) == 2


def test_an_interrupted_redrive_is_shown_and_goes_on_under_its_own_replay_id(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(produce(letter(request("cut-1", "cut")), letter(request("cut-2", "cut"))))
    send = KafkaProducer.send

    async def killed(self: KafkaProducer, *records: OutgoingRecord) -> None:
        if records[0].topic != AUDIT:
            raise KeyboardInterrupt
        await send(self, *records)

    with monkeypatch.context() as patch:
        patch.setattr(KafkaProducer, "send", killed)
        assert run("dead-letters", "redrive", "--tenant", "cut", "--yes").exit_code == 130
    between = lines(run("dead-letters", "list", "--tenant", "cut", "--json"))
    repeated = run("dead-letters", "redrive", "--tenant", "cut", "--yes")
    after = run("dead-letters", "redrive", "--tenant", "cut", "--yes")

    assert {each["redriven"] for each in between} == {"interrupted"}
    assert repeated.stdout == "2 letters put back\n"
    assert "2 left alone: redriven" in after.stdout
    assert after.exit_code == 0
    assert len(put_back(["cut-1", "cut-2"])) == 2
    assert len({each.details["replay_id"] for each in audit_of("cut-1")}) == 1


def test_who_redrove_what_is_in_the_audit_before_and_after(run: Run) -> None:
    asyncio.run(produce(letter(request("audited", "audited"))))

    run("dead-letters", "redrive", "--tenant", "audited", "--yes")

    records = audit_of("audited")
    assert [each.action for each in records] == ["dead_letter.redrive", "dead_letter.redriven"]
    assert "@" in records[0].principal
    assert records[0].subject.startswith("cortex.dead-letters/0/")


def test_what_cannot_be_put_back_is_told_with_the_reason(run: Run) -> None:
    asyncio.run(
        produce(
            letter(request("left-event", "left"), topic="cortex.events"),
            letter(request("left-circle", "left"), redrives=3),
            letter(request("left-foreign", "left"), topic="lake.vectors"),
        )
    )

    told = lines(run("dead-letters", "redrive", "--tenant", "left", "--yes", "--json"))

    assert {each["request_id"]: each["reason"] for each in told} == {
        "left-event": "event",
        "left-circle": "loop",
        "left-foreign": "no_origin",
    }
    assert put_back(["left-event", "left-circle", "left-foreign"]) == []


def test_of_a_letter_in_pointer_form_the_original_is_put_back_while_it_is_kept(run: Run) -> None:
    value = request("pointer", "pointer")
    asyncio.run(produce(OutgoingRecord(request_topic(Lane.LOW), b"own", value, [("own", b"1")])))
    [kept] = [r for r in asyncio.run(read(request_topic(Lane.LOW))) if r.value == value]
    there = {"topic": request_topic(Lane.LOW), "copy": False, "timestamp_ms": kept.timestamp_ms}
    pointers = [
        letter(value, error=StuckRun("kept"), offset=kept.offset, **there),  # type: ignore[arg-type]
        letter(value, error=StuckRun("gone"), offset=kept.offset + 1000, **there),  # type: ignore[arg-type]
        letter(value + b" ", error=StuckRun("other"), offset=kept.offset, **there),  # type: ignore[arg-type]
    ]
    asyncio.run(produce(*(on_partition_of(each, kept) for each in pointers)))
    found = lines(run("dead-letters", "list", "--topic", request_topic(Lane.LOW), "--json"))
    by_message = {each["message"]: each["letter"] for each in found}

    sent = run("dead-letters", "redrive", by_message["kept"], "--yes")
    gone = run("dead-letters", "redrive", by_message["gone"], "--yes")
    other = run("dead-letters", "redrive", by_message["other"], "--yes")
    shown = run("dead-letters", "show", by_message["gone"])

    assert sent.exit_code == 0, sent.output
    [record] = asyncio.run(read(stage_topic(VALIDATION, Lane.LOW)))
    assert (record.key, record.value, record.headers[0]) == (b"own", value, ("own", b"1"))
    assert gone.exit_code == other.exit_code == 1
    assert f"cortex.requests.low, partition {kept.partition}" in gone.stdout
    assert "is kept no longer" in shown.stdout
    assert "another record is now at" in other.stdout


def on_partition_of(pointer: OutgoingRecord, kept: ReadRecord) -> OutgoingRecord:
    """Return the letter with the partition that its original has."""
    headers = [
        (name, str(kept.partition).encode() if name.endswith("original-partition") else data)
        for name, data in pointer.headers
    ]
    return OutgoingRecord(pointer.topic, pointer.key, pointer.value, headers)


EDITOR = """\
import sys
path = sys.argv[1]
text = open(path).read()
open(path, "w").write(text.replace({old!r}, {new!r}))
"""


def editor(folder: Path, old: str, new: str) -> Mapping[str, str]:
    """Return the environment in which $EDITOR replaces `old` by `new`."""
    script = folder / "editor.py"
    script.write_text(EDITOR.format(old=old, new=new))
    return {"EDITOR": f"{sys.executable} {script}", "VISUAL": ""}


def test_a_mended_payload_is_checked_and_put_back_in_place_of_the_broken_one(
    run: Run, tmp_path: Path
) -> None:
    asyncio.run(produce(letter(request("mend", "mend", texts=[""]))))
    name = names(run, "mend")["mend"]

    result = run(
        "dead-letters", "redrive", name, "--edit", "--yes", env=editor(tmp_path, '""', '"mended"')
    )

    assert result.exit_code == 0, result.output
    [record] = put_back(["mend"])
    assert json.loads(record.value or b"")["data"] == {"texts": ["mended"]}
    assert (record.key, record.headers[0]) == (b"k\xff", ("trace", b"\x00\xff"))
    assert [each.details["edited"] for each in audit_of("mend")] == [True, True]


def test_a_payload_that_is_still_wrong_is_refused_with_its_field(run: Run, tmp_path: Path) -> None:
    asyncio.run(produce(letter(request("still", "still", texts=[""]))))
    name = names(run, "still")["still"]

    wrong = run(
        "dead-letters", "redrive", name, "--edit", "--yes",
        env=editor(tmp_path, '""', '"good", 7'), input="n\n",
    )  # fmt: skip
    unchanged = run(
        "dead-letters", "redrive", name, "--edit", "--yes", env=editor(tmp_path, "x", "x")
    )
    failing = run("dead-letters", "redrive", name, "--edit", env={"VISUAL": "false"})

    assert wrong.exit_code == 1
    assert "data.texts[1]" in wrong.stderr
    assert unchanged.exit_code == 1
    assert "nothing was changed" in unchanged.stderr
    assert failing.exit_code == 1
    assert "editing with false" in failing.stderr
    assert put_back(["still"]) == []
    assert audit_of("still") == []


def test_a_mended_payload_is_not_sent_where_the_question_is_answered_with_no(
    run: Run, tmp_path: Path
) -> None:
    asyncio.run(produce(letter(request("asked", "asked", texts=[""]))))
    name = names(run, "asked")["asked"]

    result = run(
        "dead-letters", "redrive", name, "--edit",
        env=editor(tmp_path, '""', '"good"'), input="n\n",
    )  # fmt: skip

    assert result.exit_code == 0
    assert "1 letter would be put back" in result.stdout
    assert put_back(["asked"]) == []


def test_a_letter_that_would_be_left_alone_is_not_given_to_the_editor(
    run: Run, tmp_path: Path
) -> None:
    asyncio.run(
        produce(
            letter(request("unopened", "unopened", texts=[""])),
            letter(request("unopened-event", "unopened"), topic="cortex.events"),
        )
    )
    found = names(run, "unopened")
    mended = editor(tmp_path, '""', '"mended"')
    edit = ("dead-letters", "redrive", found["unopened"], "--edit", "--yes")
    first = run(*edit, env=mended)
    assert first.exit_code == 0, first.output

    again = run(*edit, env={"VISUAL": "false"})
    event = run(
        "dead-letters", "redrive", found["unopened-event"], "--edit", env={"VISUAL": "false"}
    )
    told = run(*edit, "--again", env=mended)

    assert again.exit_code == event.exit_code == 1
    assert "--again" in again.stderr
    assert "events are handled in the order" in event.stderr
    assert told.exit_code == 0, told.output
    assert len(put_back(["unopened"])) == 2


def test_the_rate_is_kept(run: Run) -> None:
    asyncio.run(produce(*(letter(request(f"rate-{n}", "rate")) for n in range(9))))
    clock = SystemClock()
    began_s = clock.monotonic_s()

    run("dead-letters", "redrive", "--tenant", "rate", "--yes", "--rate", "4")

    assert clock.monotonic_s() - began_s >= 2.0  # 4 at once, 4 after 1 s, 1 after 2 s
    assert len(put_back([f"rate-{n}" for n in range(9)])) == 9


def test_a_limit_takes_the_oldest_and_the_repeated_command_the_next(run: Run) -> None:
    asyncio.run(produce(*(letter(request(f"some-{n}", "some")) for n in range(3))))

    words = ("dead-letters", "redrive", "--tenant", "some", "--limit", "2", "--yes", "--json")
    first, second, third = (
        [each["request_id"] for each in lines(run(*words)) if each["redrive"] == "sent"]
        for _ in range(3)
    )

    assert (first, second, third) == (["some-0", "some-1"], ["some-2"], [])
