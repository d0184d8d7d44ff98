"""The pipelines of this worker: those of its file, and the built-in ones."""

from cortex_stream.errors import OperatorError
from cortex_stream.routing.pipeline import BUILT_IN, Pipeline
from cortex_stream.routing.pipeline_file import parse_pipelines
from cortex_stream.settings.stages import PipelinesSettings


def load_pipelines(settings: PipelinesSettings) -> tuple[Pipeline, ...]:
    """Return the pipelines in the order in which they are asked.

    Raises:
        OperatorError: the file cannot be read, or names what is wrong in it.
    """
    path = settings.file
    if path is None:
        return BUILT_IN
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"reading the pipelines (CORTEX_PIPELINES__FILE): {error}") from error
    return parse_pipelines(text, path=str(path))
