"""What was disturbed is measured again."""

from collections.abc import Sequence

import pytest

from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.meter import Sample, Usage
from cortex_stream.loadtest.sides import Measured
from cortex_stream.loadtest.undisturbed import Undisturbed


class Runs:
    """Runs of ten seconds each, during which so many cores are stolen."""

    def __init__(self, stolen_cores: Sequence[float]) -> None:
        self.stolen_cores = stolen_cores
        self.tries: list[int] = []

    async def measure(self, number: int) -> Measured:
        self.tries.append(number)
        stolen_s = 10 * self.stolen_cores[number - 1]
        samples = [
            Sample(50_000, Usage(1, 1), 10, 5),
            Sample(60_000, Usage(3, 1), 13, 5 + stolen_s),
        ]
        return Measured(Ledger(), cpu_s=2.0, peak_rss_bytes=1, samples=samples)


@pytest.mark.parametrize(
    ("stolen", "tries", "counts"),
    [
        ([0.05], 1, 0.05),
        ([0.4, 0.2, 0.0], 3, 0.0),
        ([0.4, 0.2, 0.3, 0.5], 4, 0.2),
    ],
    ids=["quiet", "quiet in the end", "never quiet"],
)
async def test_the_first_quiet_run_counts_or_the_least_disturbed(
    stolen: list[float], tries: int, counts: float
) -> None:
    runs, said = Runs(stolen), list[str]()
    undisturbed = Undisturbed(most_repeats=3, say=said.append)

    found = await undisturbed.run(runs.measure)

    assert found.stolen_cores == pytest.approx(counts)
    assert runs.tries == list(range(1, tries + 1))
    assert undisturbed.repeats == len(said) == tries - 1


async def test_repeats_are_shared_by_the_runs_of_a_profile() -> None:
    undisturbed = Undisturbed(most_repeats=3, say=lambda _: None)
    _ = await undisturbed.run(Runs([0.4, 0.4, 0.0]).measure)

    second = Runs([0.4, 0.4])
    _ = await undisturbed.run(second.measure)

    assert second.tries == [1, 2]
    assert "3, at most 3" in undisturbed.method
