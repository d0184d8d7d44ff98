"""`cortex-stream worker`: become a worker."""

import os
import sys
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError

from cortex_stream.environment import subprocess_environment
from cortex_stream.settings.stages import WorkerSettings


def worker(
    *,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Run only these stages, as `validation,embedding`, whatever"
            " CORTEX_WORKER__STAGES says; work for others is handed over."
        ),
    ] = None,
) -> None:
    """Run a worker in this terminal, until Ctrl-C or SIGTERM.

    It takes requests from Kafka, runs models and puts outcomes back.
    Settings come from the environment and are checked first.

    Exit codes: 0 stopped, 1 failed, 2 misconfigured, 3 cut off while it
    drained, 4 stalled (docs/operations/supervision.md).
    """
    variables = {}
    if stages is not None:
        variables["CORTEX_WORKER__STAGES"] = orjson.dumps(_hosted(stages)).decode()
    # The worker checks the settings itself, and its exit code tells a supervisor that they are wrong.
    # In place of this process: signals of a supervisor reach the worker, and the command line
    # never imports upward (agents -> cortex_stream).
    os.execve(  # noqa: S606 (no shell wanted)
        sys.executable,
        [sys.executable, "-m", "agents"],
        subprocess_environment(**variables),
    )


def _hosted(stages: str) -> tuple[str, ...]:
    names = [name.strip() for name in stages.split(",")]
    try:
        return WorkerSettings.model_validate({"stages": names}).stages
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(
            first["msg"].removeprefix("Value error, "), param_hint="--stages"
        ) from None
