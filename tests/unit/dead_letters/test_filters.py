import pytest

from cortex_stream.dead_letters.filters import EVERYTHING, LetterFilter, moment_ms
from schemas import dead_letters as names
from tests.unit.dead_letters.letters import WRITTEN_MS, letter

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        LetterFilter(codes=frozenset({"stuck_run", "invalid_field"})),
        LetterFilter(types=frozenset({"cortex.nlp.embed.v1"})),
        LetterFilter(tenants=frozenset({"//lake"})),
        LetterFilter(topics=frozenset({"cortex.requests.high"})),
        LetterFilter(since_ms=WRITTEN_MS, until_ms=WRITTEN_MS + 1),
    ],
)
def test_a_letter_that_has_all_that_is_asked_for_is_meant(wanted: LetterFilter) -> None:
    assert wanted.matches(letter())


@pytest.mark.parametrize(
    "wanted",
    [
        LetterFilter(codes=frozenset({"stuck_run"})),
        LetterFilter(types=frozenset({"cortex.nlp.classify.v1"})),
        LetterFilter(tenants=frozenset({"acme"})),
        LetterFilter(topics=frozenset({"cortex.requests.low"})),
        LetterFilter(since_ms=WRITTEN_MS + 1),
        LetterFilter(until_ms=WRITTEN_MS),
        LetterFilter(codes=frozenset({"invalid_field"}), tenants=frozenset({"acme"})),
    ],
)
def test_a_letter_that_lacks_one_thing_is_not_meant(wanted: LetterFilter) -> None:
    assert not wanted.matches(letter())


def test_a_letter_without_an_origin_is_of_no_topic() -> None:
    damaged = letter(add=[(names.ORIGINAL_OFFSET, b"?")])

    assert not LetterFilter(topics=frozenset({"cortex.requests.high"})).matches(damaged)


@pytest.mark.parametrize(
    ("text", "ago_ms"), [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)]
)
def test_so_long_ago_is_a_moment(text: str, ago_ms: int) -> None:
    assert moment_ms(text, now_unix_ms=NOW_MS) == NOW_MS - ago_ms


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-15T00:13:20+02:00"]
)
def test_a_time_is_a_moment_in_utc_unless_it_says_otherwise(text: str) -> None:
    assert moment_ms(text, now_unix_ms=NOW_MS) == 1_700_000_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "h", "-1h", "1w", "٣h"])
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="2h"):
        moment_ms(text, now_unix_ms=NOW_MS)
