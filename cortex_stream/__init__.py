"""The engine and everything that runs without Faust.

ONNX Runtime since 1.29 reports to its vendor unless it is told not to before it is loaded; so that is
told here, where nobody can be earlier.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
