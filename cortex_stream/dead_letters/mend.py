"""A payload that a person has changed. Pure."""

from dataclasses import replace

from cortex_stream.dead_letters.letter import Letter, asked_by
from cortex_stream.engine.parse import decode, read_attributes
from cortex_stream.engine.validate import validate
from cortex_stream.record import RecordSource
from cortex_stream.settings.sections import LimitsSettings


def mended(letter: Letter, value: bytes, *, limits: LimitsSettings) -> Letter:
    """Return the letter with another payload, once that is a request that a worker accepts.

    Whether its model is served is known to the workers alone.

    Raises:
        Refused: the engine would refuse it, in these words.
    """
    headers = letter.original_headers
    source = RecordSource(
        topic="", partition=0, offset=0, timestamp_ms=-1, received_s=0.0, headers=headers
    )
    envelope = decode(value, source, limits=limits)
    validate(read_attributes(envelope), envelope.data, limits=limits)
    asked = asked_by(value, headers, limits=limits)
    return replace(letter, value=value, size_bytes=len(value), truncated=False, asked=asked)
