"""The command line that all peers have, and their processes."""

import argparse
import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is to do.

    Attributes:
        brokers: `host:port`, several by commas.
        requests: topics to read, the most urgent first; they exist, as does `results`.
        group: the consumer group; without offsets it begins with the oldest record.
        model: the folder of a model version.
    """

    brokers: str
    requests: tuple[str, ...]
    results: str
    group: str
    model: Path


def main(work: Callable[[Job], None]) -> None:
    """Do `work` until SIGTERM, in one process or in several of the same group."""
    options = _options()
    if options.processes > 1:
        _run_several(options.processes)
    else:
        work(
            Job(
                brokers=options.brokers,
                requests=tuple(options.requests.split(",")),
                results=options.results,
                group=options.group,
                model=options.model,
            )
        )


@functools.cache  # a rebalance assigns again, and only the first time is news
def say_ready() -> None:
    """Tell whoever started us, by one line, that partitions are assigned."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--brokers", required=True, help="host:port, several by commas")
    parser.add_argument("--requests", required=True, help="topics by commas, most urgent first")
    parser.add_argument("--results", required=True, help="topic")
    parser.add_argument("--group", required=True, help="consumer group")
    parser.add_argument("--model", required=True, type=Path, help="folder of a model version")
    parser.add_argument("--processes", default=1, type=int)
    return parser.parse_args()


def _run_several(processes: int) -> None:
    """Run this command so many times; say ready when all are, and pass SIGTERM on."""
    children: list[subprocess.Popen[str]] = []

    def stop(*_: object) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    command = [sys.executable, *sys.orig_argv[1:], "--processes", "1"]  # the last one counts
    children += [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own command)
        for _ in range(processes)
    ]
    if all(child.stdout is not None and child.stdout.readline() for child in children):
        say_ready()
    else:
        stop()  # one could not start: no fair comparison
    sys.exit(max(abs(child.wait()) for child in children))
