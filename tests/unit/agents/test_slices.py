"""How a batch is cut into what one turn of the event loop starts."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agents.polled import SLICE_BYTES, SLICE_RECORDS, memory_bytes, slices


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@given(st.lists(st.none() | st.integers(0, 2 * SLICE_BYTES), min_size=1, max_size=60))
def test_slices_are_the_batch_and_only_a_lone_record_is_too_large(sizes: list[int | None]) -> None:
    records = [Record(n, None if size is None else bytes(size)) for n, size in enumerate(sizes)]

    pieces = list(slices(records))

    assert [record for piece in pieces for record in piece] == records
    for piece in pieces:
        assert 1 <= len(piece) <= SLICE_RECORDS
        assert len(piece) == 1 or sum(map(memory_bytes, piece)) <= SLICE_BYTES


def test_many_small_headers_weigh_more_than_their_bytes() -> None:
    bare = Record(0, b"value", key=b"key")
    headed = Record(0, b"value", key=b"key", headers=(("a", b"bc"), ("d", None)) * 1000)

    assert memory_bytes(bare) == 8
    assert memory_bytes(headed) == 8 + 1000 * (3 + 1 + 2 * 100)
