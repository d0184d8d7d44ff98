"""The user's own editor, on a text."""

import shlex
import subprocess
import tempfile
from pathlib import Path

from cortex_stream.environment import subprocess_environment
from cortex_stream.errors import OperatorError


def edited(text: str) -> str:
    """Return what the user makes of `text` in $VISUAL, $EDITOR or vi. Blocks until it is closed.

    Raises:
        OperatorError: there is no such editor, or it failed.
    """
    environment = subprocess_environment()
    command = environment.get("VISUAL") or environment.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="cortex-stream-") as folder:  # readable by its owner
        file = Path(folder) / "payload.json"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(command), str(file)], check=True)  # noqa: S603 (the user's)
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise OperatorError(
                f"editing with {command}: {error}", repair="export EDITOR=… (such as nano)"
            ) from error
