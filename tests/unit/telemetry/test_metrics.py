"""The metrics table, read back as Prometheus reads it."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cortex_stream.telemetry import metrics


def _families() -> dict[str, str]:
    text = generate_latest(metrics.REGISTRY).decode()
    return {family.name: family.documentation for family in text_string_to_metric_families(text)}


def test_every_metric_has_a_help_text() -> None:
    without_help = [name for name, text in _families().items() if not text.strip()]

    assert without_help == []


def test_the_process_tells_its_memory_cpu_and_open_files() -> None:
    names = set(_families())

    wanted = {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"}
    assert wanted <= names


def test_our_own_metrics_carry_the_products_name() -> None:
    assert all(name.startswith(("cortex_", "process_")) for name in _families())
