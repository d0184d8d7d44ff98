"""The load: one seed, one sequence; and no two requests by mistake alike."""

import hashlib
import json
from itertools import islice
from pathlib import Path

from tests.chaos.corpus import MALFORMED, oversized
from tests.chaos.history import Journal, Sent, invoked, read_sent
from tests.chaos.load import USUAL, Planned, Traffic


def drawn(seed: int, count: int = 500) -> list[Planned]:
    traffic = Traffic(seed)
    return list(islice(iter(lambda: traffic.next(now_ms=1_700_000_000_000), None), count))


def test_one_seed_gives_one_sequence_and_another_seed_another() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_every_kind_comes_and_only_duplicates_and_conflicts_repeat_an_id() -> None:
    planned = drawn(3, 2000)

    assert set(USUAL) == {each.kind for each in planned}
    fresh = [p.request_id for p in planned if p.kind not in {"duplicate", "conflict"}]
    named = [name for name in fresh if name is not None]
    assert len(named) == len(set(named))


def test_a_conflict_has_the_id_of_another_request_and_another_payload() -> None:
    planned = drawn(3, 2000)
    asked = {p.request_id: p for p in planned if p.kind == "embed"}

    for each in (p for p in planned if p.kind == "conflict"):
        assert each.value is not None
        assert (
            json.loads(each.value)["data"]
            != json.loads(asked[each.request_id].value or b"")["data"]
        )


def test_an_oversized_request_has_exactly_the_bytes_it_was_asked_for() -> None:
    for size_bytes in ((1 << 20) - 1, 1 << 20, (1 << 20) + 1, 1_500_000):
        assert len(oversized("name", size_bytes=size_bytes)) == size_bytes


def test_what_stands_for_an_id_is_in_each_malformed_record_that_has_one() -> None:
    for each in MALFORMED:
        assert (each.identity == "place") or b"@" in (each.value or b"")


def test_the_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    # given
    journal = Journal(tmp_path / "history.jsonl")
    digest = hashlib.sha256(b"").hexdigest()
    for number in range(3):
        invoked(journal, Sent(number, "embed", "t", digest, f"r{number}"))
    journal.write(op="ok", number=0, partition=1, offset=7)
    journal.write(op="fail", number=1)
    journal.close()

    # when
    sent = read_sent(tmp_path / "history.jsonl")

    # then: of the last nobody knows
    assert [each.state for each in sent] == ["ok", "fail", "info"]
    assert (sent[0].partition, sent[0].offset) == (1, 7)
