"""A worker as in production, but for its model, which sleeps 60 ms for each text.

So requests pile up in its memory however fast or busy the machine is.
"""

from agents.stub_worker import run_worker
from cortex_stream.inference.model import LoadedModel
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import StubRunner, stub_model


def load_slow(_: Settings) -> list[LoadedModel]:
    runners = tuple(StubRunner(model="minilm@1", sleep_s_per_row=0.06) for _ in range(2))
    return [stub_model(name="minilm", runners=runners)]


if __name__ == "__main__":
    run_worker(load_slow)
