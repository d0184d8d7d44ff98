import json

import pytest
from typer.testing import CliRunner

from cortex_stream.cli.main import app

NOBODY = {"KAFKA_BROKERS": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["embed"], "give a text, or --data"),
        (["embed", "--data", "{"], "is not JSON"),
        (["embed", "--data", "[1]"], "is not a JSON object"),
        (["embed", "x", "--priority", "urgent"], "urgent"),
        (["embed", "x", "--deadline-ms", "-1"], "--deadline-ms"),
    ],
)
def test_a_request_that_makes_no_sense_is_wrong_usage(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["send", *arguments], env=NOBODY)

    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.parametrize("more", [[], ["--wait"], ["--json"]])
def test_without_a_broker_the_error_says_how_to_get_one(more: list[str]) -> None:
    result = CliRunner().invoke(app, ["send", "embed", "x", *more], env=NOBODY)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error: talking to Kafka at 127.0.0.1:1" in result.stderr
    assert "repair: start it (cortex-stream stack up) or set KAFKA_BROKERS" in result.stderr


def test_results_without_a_broker_say_the_same() -> None:
    result = CliRunner().invoke(app, ["results", "--json"], env=NOBODY)

    assert result.exit_code == 1
    assert "cortex-stream stack up" in result.stderr


def test_doctor_reports_every_failure_with_its_repair_and_no_secret() -> None:
    secrets = {
        **NOBODY,
        "REDIS_URL": "redis://somebody:geheim-1@127.0.0.1:1/0",
        "POSTGRES_URL": "postgresql://somebody:geheim-2@127.0.0.1:2/cortex",
        "CORTEX_MODELS__FOLDER": "/nonexistent/models",
    }

    result = CliRunner().invoke(app, ["doctor", "--json"], env=secrets)

    found = json.loads(result.stdout)
    absent = [check for check in found["checks"] if not check["ok"]]
    failed = {check["name"]: check["repair"] for check in absent if check["needed"]}
    assert result.exit_code == 1
    assert found["ok"] is False
    assert {check["name"] for check in absent} - failed.keys() == {"postgres"}
    assert failed.keys() == {"kafka", "redis", "model minilm"}
    assert all(failed.values())
    assert "cortex-stream models pull minilm" in failed["model minilm"]
    assert "geheim" not in result.output


def test_doctor_with_wrong_settings_names_them_and_still_checks_the_rest() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"CORTEX_WEB__PORT": "many"})

    assert result.exit_code == 1
    assert "FAILED settings" in result.stdout
    assert "CORTEX_WEB__PORT" in result.stdout
    assert "ok     packages" in result.stdout
