"""A worker as in production, but for its model: texts of some lengths end the process, or raise.

`--uncountable`: it may not write to `cortex.attempts`.
"""

import argparse
import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from unittest.mock import patch

from agents import faust_app
from agents.faust_app import EdgeApp
from agents.faust_worker import EdgeWorker
from cortex_stream.bootstrap import worker as bootstrap
from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.errors import BrokerUnavailable, InvalidOutput
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import load_settings
from cortex_stream.telemetry.logging import configure_logging
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from topics.names import ATTEMPTS

EXITS, SEGFAULTS, RAISES = ("x" * length for length in (70, 80, 90))
"""Texts; the stub's tokenizer makes a token of each byte, and two more."""


class DeadlyRunner(StubRunner):
    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return the stub's numbers, if it lives so long."""
        lengths = {row.tokens - 2 for row in rows}
        if len(EXITS) in lengths:
            os._exit(1)
        if len(SEGFAULTS) in lengths:
            os.kill(os.getpid(), signal.SIGSEGV)
        if len(RAISES) in lengths:
            raise InvalidOutput("not a number")
        return super().run(rows)


class UncountingProducer(KafkaProducer):
    async def send(self, *records: OutgoingRecord) -> None:
        if any(record.topic == ATTEMPTS for record in records):
            raise BrokerUnavailable(f"producing to {ATTEMPTS}: not allowed")
        await super().send(*records)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uncountable", action="store_true")
    uncountable = parser.parse_args().uncountable
    settings = load_settings()
    configure_logging(settings)
    runners = tuple(DeadlyRunner(model="minilm@1", sleep_s_per_row=0.002) for _ in range(2))
    model = stub_model(name="minilm", runners=runners)
    producer = (
        patch.object(faust_app, "KafkaProducer", UncountingProducer)
        if uncountable
        else nullcontext()
    )
    with patch.object(bootstrap, "load_models", return_value=[model]), producer:
        worker = bootstrap.build_worker(settings)
        app = EdgeApp(settings, worker, lambda edge: WorkerStatus(worker, edge))
        app.finalize()
        EdgeWorker(app, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
