from pathlib import Path

import pytest

from cortex_stream.errors import BrokerUnavailable
from cortex_stream.kafka.admin import TopicAdmin, verify_topics
from cortex_stream.kafka.bookmarks import Bookmark, Bookmarks, BookmarkWriter
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from topics.names import RESULTS

pytestmark = pytest.mark.integration


async def test_every_client_works_over_tls_with_a_password(secure_settings: Settings) -> None:
    async with TopicAdmin(secure_settings) as admin:
        await admin.apply((await admin.plan()).changes)
    await verify_topics(secure_settings)
    producer = KafkaProducer(secure_settings)
    await producer.start()

    await producer.send(OutgoingRecord(RESULTS, b"key", b"value"))

    await producer.stop()
    async with TopicReader(secure_settings, [RESULTS]) as reader:
        assert [record.value async for record in reader.to_end()] == [b"value"]
    place, bookmark = (RESULTS, 0), Bookmark(1, "a note")
    async with BookmarkWriter(secure_settings, "reader", [place]) as writer:
        await writer.write({place: bookmark})
    async with Bookmarks(secure_settings) as bookmarks:
        assert await bookmarks.read("reader") == {place: bookmark}


async def test_a_wrong_password_is_refused(secure_settings: Settings, wrong_password: Path) -> None:
    security = secure_settings.kafka.security.model_copy(update={"password_file": wrong_password})
    kafka = secure_settings.kafka.model_copy(update={"security": security})

    with pytest.raises(BrokerUnavailable):
        await verify_topics(secure_settings.model_copy(update={"kafka": kafka}))


async def test_a_broker_of_another_authority_is_refused(secure_settings: Settings) -> None:
    security = secure_settings.kafka.security.model_copy(update={"ca_file": None})
    kafka = secure_settings.kafka.model_copy(update={"security": security})

    with pytest.raises(BrokerUnavailable):
        await verify_topics(secure_settings.model_copy(update={"kafka": kafka}))
