"""`python -m agents`: run a worker until a signal; `cortex-stream worker` becomes this."""

import sys

from agents.faust_worker import EdgeWorker, ExitCode
from cortex_stream.errors import OperatorError


def main() -> None:
    """Run the worker; it ends with an `ExitCode`."""
    try:
        from agents.app import app  # noqa: PLC0415 (reads the settings, which may be wrong)
    except OperatorError as error:
        sys.stderr.write(f"error: {error}\n")
        if error.repair is not None:
            sys.stderr.write(f"repair: {error.repair}\n")
        raise SystemExit(ExitCode.MISCONFIGURED) from None
    app.finalize()
    EdgeWorker(app, quiet=True).execute_from_commandline()


main()
