"""ONNX Runtime, which is told to report nothing to its vendor: since 1.29 it does by default.

It looks at the variable once, when it is loaded. So everybody takes it from here.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # type: ignore[import-untyped]

__all__ = ["onnxruntime"]
