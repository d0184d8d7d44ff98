from hypothesis import example, given
from hypothesis import strategies as st

from cortex_stream.dedupe.fingerprint import DIGEST_BYTES, Fingerprint, fingerprint

WHOSE = st.tuples(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
DIGEST = bytes(range(32))


def of(whose: tuple[str, str, str], digest: bytes = DIGEST) -> Fingerprint:
    system, source, request_id = whose
    return fingerprint(system=system, source=source, request_id=request_id, payload_digest=digest)


@given(one=WHOSE, other=WHOSE)
@example(one=("", "a", "bc"), other=("", "ab", "c"))
@example(one=("a", "", "b"), other=("", "a", "b"))
@example(one=("", "1:a", ""), other=("", "", "1:a"))
def test_two_requests_have_one_key_only_if_system_source_and_id_are_equal(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (of(one).key == of(other).key) is (one == other)


@given(whose=WHOSE, digest=st.binary(min_size=32, max_size=32))
def test_a_fingerprint_is_small_whatever_the_request(
    whose: tuple[str, str, str], digest: bytes
) -> None:
    found = of(whose, digest)

    assert len(found.key) == len(b"dedup:") + DIGEST_BYTES
    assert found.payload == digest[:DIGEST_BYTES]


def test_the_key_shows_whose_it_is_and_nothing_of_the_request() -> None:
    key = of(("staging", "//shop", "order-17")).key

    assert key.startswith(b"dedup:")
    assert b"shop" not in key
    assert b"order" not in key
