import os
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_stream.cli import main as main_module
from cortex_stream.cli.main import COMMANDS, app
from cortex_stream.errors import OperatorError
from cortex_stream.version import VERSION

SUB_COMMANDS = [
    ("models", "pull"),
    ("stack", "up"),
    ("topics", "apply"),
]


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), *SUB_COMMANDS])
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])

    assert result.exit_code == 0
    assert f"Usage: cortex-stream {' '.join(command)}" in result.stdout


def test_the_list_of_commands_fits_80_columns_and_names_all() -> None:
    result = CliRunner().invoke(app, ["--help"])

    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for name, entry in COMMANDS.items():
        assert name in result.stdout
        assert entry.summary in result.stdout


def test_showing_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from cortex_stream.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )

    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    loaded = set(shown.stderr.split())
    assert "typer" in loaded
    assert loaded.isdisjoint({"aiokafka", "faust", "numpy", "onnxruntime", "pydantic", "torch"})


def test_version_is_that_of_the_release() -> None:
    result = CliRunner().invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"cortex-stream {VERSION}\n")


def test_a_misspelt_command_is_wrong_usage_and_gets_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["reslts"])

    assert result.exit_code == 2
    assert "Did you mean 'results'?" in result.stderr


def test_a_foreseen_error_is_one_line_and_the_repair_never_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise OperatorError("talking to [nobody]: silence", repair="speak [louder]")

    monkeypatch.setattr(main_module, "load_command", lambda _: _command(fails))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "error: talking to [nobody]: silence\nrepair: speak [louder]\n"


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "load_command", lambda _: _command(interrupted))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 130


def test_a_wrong_setting_is_named_by_every_command_that_needs_settings() -> None:
    for command in (["send", "embed", "x"], ["results"], ["topics", "plan"]):
        result = CliRunner().invoke(app, command, env={"KAFKA_BROKERS": "nonsense"})

        assert result.exit_code == 1, command
        assert "KAFKA_BROKERS" in result.stderr
        assert "Traceback" not in result.output


def test_worker_becomes_the_worker_so_that_signals_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: became.append(words))

    result = CliRunner().invoke(app, ["worker"])

    assert result.exit_code == 0
    [(program, words, variables)] = became
    assert (program, words) == (sys.executable, [sys.executable, "-m", "agents"])
    assert "CORTEX_WORKER__STAGES" not in variables


def test_worker_hosts_the_stages_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: became.append(words))

    result = CliRunner().invoke(app, ["worker", "--stages", "embedding, validation"])

    assert result.exit_code == 0
    [(_, _, variables)] = became
    assert variables["CORTEX_WORKER__STAGES"] == '["validation","embedding"]'


def test_worker_refuses_a_stage_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: became.append(words))

    wrong = [
        CliRunner().invoke(app, ["worker", "--stages", stages])
        for stages in ("embeding", "embedding,embedding", "")
    ]

    assert [result.exit_code for result in wrong] == [2, 2, 2]
    assert "'validation', 'embedding' or" in wrong[0].output
    assert became == []


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m cortex_stream topics list | head -c 1"],
        capture_output=True,
        check=True,
    )

    assert ended.stdout
    assert ended.stderr == b""


def _command(function: Any) -> Any:
    import typer  # noqa: PLC0415 (two tests alone)

    single = typer.Typer(add_completion=False)
    single.command()(function)
    return typer.main.get_command(single)
