"""Dead letters as the engine's own code writes them."""

from collections.abc import Sequence

from cortex_stream.dead_letters.letter import Letter, Place, read_letter
from cortex_stream.delivery.dead_letter import Failure, dead_letter
from cortex_stream.errors import CortexError, InvalidField
from cortex_stream.record import Headers, RecordSource
from cortex_stream.settings.sections import LimitsSettings

LIMITS = LimitsSettings()
PLACE = Place(0, 42)
VALUE = b'{"id":"r1","type":"cortex.nlp.embed.v1","source":"//lake","data":{"texts":["a"]}}'
WRITTEN_MS = 1_700_000_000_000
TOPIC = "cortex.requests.high"


def letter(
    value: bytes | None = VALUE,
    *,
    key: bytes | None = b"key",
    headers: Sequence[tuple[str, bytes | None]] = (),
    topic: str = TOPIC,
    error: CortexError | None = None,
    redrives: int = 0,
    copy: bool = True,
    place: Place = PLACE,
    written_ms: int = WRITTEN_MS,
    add: Headers = (),
) -> Letter:
    """Return the letter of a record; `add` are headers that somebody else put behind ours."""
    source = RecordSource(topic, 3, 7, 1_600_000_000_000, 0.0, key=key, headers=tuple(headers))
    failure = Failure(
        error=error or InvalidField("data.texts: Field required", field="data.texts"),
        stage="validation",
        attempts=2,
        worker="worker-0",
        model="minilm@1",
        first_unix_ms=1000,
        last_unix_ms=2000,
        redrives=redrives,
    )
    record = dead_letter(value, source, failure, max_message_bytes=8192, copy=copy)
    return read_letter(
        place=place,
        written_ms=written_ms,
        key=record.key,
        value=record.value,
        headers=(*record.headers, *add),
        limits=LIMITS,
    )
