"""`python -m agents`: run a worker until a signal; `cortex-stream worker` becomes this."""

import sys

from agents.faust_app import EXIT_MISCONFIGURED
from agents.faust_worker import EdgeWorker
from cortex_stream.errors import OperatorError


def main() -> None:
    """Run the worker. Exit codes: 0 stopped, 1 failed, 2 misconfigured, 3 had to be cut off."""
    try:
        from agents.app import app  # noqa: PLC0415 (reads the settings, which may be wrong)
    except OperatorError as error:
        sys.stderr.write(f"error: {error}\n")
        if error.repair is not None:
            sys.stderr.write(f"repair: {error.repair}\n")
        raise SystemExit(EXIT_MISCONFIGURED) from None
    app.finalize()
    EdgeWorker(app, quiet=True).execute_from_commandline()


main()
