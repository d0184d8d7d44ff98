"""What the hand-written loop runs together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.loadtest.peers.aiokafka_loop import Waiting, batches

LENGTHS = st.lists(
    st.lists(st.integers(min_value=1, max_value=256), min_size=1, max_size=12), max_size=60
)


def waiting(lengths: list[list[int]]) -> list[Waiting]:
    return [
        Waiting({"id": str(index)}, [np.zeros(length, np.int64) for length in some])
        for index, some in enumerate(lengths)
    ]


@given(LENGTHS)
def test_every_request_is_in_one_batch(lengths: list[list[int]]) -> None:
    requests = waiting(lengths)

    cut = [each.request["id"] for batch in batches(requests) for each in batch]

    assert sorted(cut) == sorted(each.request["id"] for each in requests)


@given(LENGTHS)
def test_a_batch_of_several_requests_has_8_rows_and_256_padded_tokens_at_most(
    lengths: list[list[int]],
) -> None:
    for batch in batches(waiting(lengths)):
        rows = sum(len(each.rows) for each in batch)
        assert len(batch) == 1 or (rows <= 8 and rows * max(one.tokens for one in batch) <= 256)


@given(LENGTHS)
def test_no_batch_has_a_longer_text_than_the_one_before(lengths: list[list[int]]) -> None:
    longest = [batch[0].tokens for batch in batches(waiting(lengths))]

    assert longest == sorted(longest, reverse=True)
