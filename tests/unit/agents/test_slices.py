"""How a batch is cut into what one turn of the event loop starts."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agents.intake import _SLICE_BYTES, _SLICE_RECORDS, _slices, memory_bytes


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@given(st.lists(st.none() | st.integers(0, 2 * _SLICE_BYTES), min_size=1, max_size=60))
def test_slices_are_the_batch_and_only_a_lone_record_is_too_large(sizes: list[int | None]) -> None:
    records = [Record(n, None if size is None else bytes(size)) for n, size in enumerate(sizes)]

    slices = list(_slices(records))

    assert [record for piece in slices for record in piece] == records
    for piece in slices:
        assert 1 <= len(piece) <= _SLICE_RECORDS
        assert len(piece) == 1 or sum(map(memory_bytes, piece)) <= _SLICE_BYTES


def test_many_small_headers_weigh_more_than_their_bytes() -> None:
    bare = Record(0, b"value", key=b"key")
    headed = Record(0, b"value", key=b"key", headers=(("a", b"bc"), ("d", None)) * 1000)

    assert memory_bytes(bare) == 8
    assert memory_bytes(headed) == 8 + 1000 * (3 + 1 + 2 * 100)
