"""What our Kafka transport leaves out of Faust's."""

from agents.transport import EdgeConsumer


async def test_faust_asks_for_no_commits_of_its_own_and_moves_no_position() -> None:
    consumer = EdgeConsumer.__new__(EdgeConsumer)  # without a client that could be asked

    await consumer.perform_seek()
