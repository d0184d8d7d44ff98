import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from cortex_stream.cli.stack import stack_app
from cortex_stream.devstack import stack as stack_module
from cortex_stream.devstack.service import Condition
from cortex_stream.devstack.stack import Stack
from cortex_stream.devstack.state import choose_ports
from cortex_stream.errors import StackFailed
from tests.integration.devstack.keepsake import Heard, Keepsake, processes_in
from tests.suspending import suspended

pytestmark = pytest.mark.integration

SERVICES = ("kafka", "redis", "postgres")


def pids(stack: Stack) -> list[int | None]:
    return [stack.pid(name) for name in SERVICES]


def kill(stack: Stack, name: str) -> None:
    pid = stack.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_up_again_starts_nothing(own_stack: Stack, heard: Heard) -> None:
    before = pids(own_stack)

    own_stack.up(heard)

    assert pids(own_stack) == before
    assert heard.lines == []


def test_status_tells_that_all_three_answer(own_stack: Stack) -> None:
    own_stack.up()

    statuses = {status.service: status for status in own_stack.status()}

    assert set(statuses) == set(SERVICES)
    for status in statuses.values():
        assert status.state is Condition.RUNNING
        assert status.memory_mb > 0
        assert status.version[0].isdigit()


@pytest.mark.parametrize("name", SERVICES)
async def test_a_killed_service_is_repaired_by_up_and_has_kept_its_data(
    own_stack: Stack, keepsake: Keepsake, name: str
) -> None:
    own_stack.up()
    await keepsake.keep()
    before = own_stack.pid(name)

    kill(own_stack, name)
    own_stack.up()

    assert own_stack.pid(name) not in {None, before}
    assert await keepsake.places() == list(SERVICES)


async def test_all_three_killed_at_once_are_repaired(own_stack: Stack, keepsake: Keepsake) -> None:
    own_stack.up()
    await keepsake.keep()

    for name in SERVICES:
        kill(own_stack, name)
    own_stack.up()

    assert await keepsake.places() == list(SERVICES)


async def test_postgres_offers_vectors(own_stack: Stack) -> None:
    own_stack.up()
    connection = await asyncpg.connect(own_stack.postgres_url)

    distance = await connection.fetchval("SELECT '[3,0]'::vector <-> '[0,4]'::vector")
    await connection.close()

    assert distance == 5


def test_a_single_service_is_stopped_and_started_alone(own_stack: Stack) -> None:
    own_stack.up()
    kafka, _, postgres = pids(own_stack)

    own_stack.stop_service("redis")
    stopped = pids(own_stack)
    own_stack.start_service("redis")

    assert stopped == [kafka, None, postgres]
    assert own_stack.pid("redis") is not None


def test_a_silent_service_is_told_from_a_running_one(own_stack: Stack) -> None:
    own_stack.up()

    with suspended(own_stack.pid("redis")):
        states = {status.service: status.state for status in own_stack.status()}

    assert states["redis"] is Condition.SILENT


def test_a_service_whose_port_was_taken_moves_and_says_so(own_stack: Stack, heard: Heard) -> None:
    own_stack.up()
    old_url = own_stack.redis_url
    port = int(old_url.rpartition(":")[2].partition("/")[0])
    own_stack.stop_service("redis")

    with socket.create_server(("127.0.0.1", port)):
        own_stack.up(heard)

    assert own_stack.redis_url != old_url
    assert f"port {port} is taken by another program" in heard.lines[0]


def test_a_port_that_is_taken_after_it_was_chosen_is_replaced(
    stack_programs: None,  # noqa: ARG001
    tmp_path: Path,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = Stack(tmp_path / "late")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        chosen = choose_ports(secure=False, usual=False) | {"redis": taken}
        monkeypatch.setattr(stack_module, "choose_ports", lambda **_: chosen)

        try:
            stack.start_service("redis", heard)
            url = stack.redis_url
        finally:
            stack.wipe()

    assert f":{taken}/" not in url
    assert f"port {taken} is taken by another program" in heard.lines[0]


def test_a_failed_start_shows_the_end_of_the_log(own_stack: Stack) -> None:
    own_stack.up()
    own_stack.stop_service("redis")
    kept = own_stack.folder / "redis" / "data" / "appendonly.aof"
    content = kept.read_bytes()
    kept.write_bytes(b"this is no append-only file\n" * 3)

    with pytest.raises(StackFailed, match="starting redis") as failure:
        own_stack.up()
    kept.write_bytes(content)
    own_stack.up()

    assert "Bad file format" in str(failure.value)
    assert "stack wipe" in (failure.value.repair or "")


def test_env_prints_export_lines_only_and_a_shell_can_use_them(own_stack: Stack) -> None:
    options = ["--data-dir", str(own_stack.folder.parent), "--name", own_stack.folder.name]

    printed = CliRunner().invoke(stack_app, ["env", *options]).stdout
    read_back = subprocess.run(
        [
            *("/bin/sh", "-c", 'eval "$1"; exec "$2" -c "$3"', "sh", printed, sys.executable),
            "from cortex_stream.settings.tree import load_settings; print(load_settings().kafka_brokers)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    lines = printed.splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        "export KAFKA_BROKERS",
        "export REDIS_URL",
        "export POSTGRES_URL",
    ]
    assert read_back.stdout.strip() == own_stack.kafka_brokers


def test_stacks_side_by_side_share_nothing_and_concurrent_ups_start_one(
    own_stack: Stack, tmp_path: Path
) -> None:
    own_stack.up()
    before = pids(own_stack)
    other = Stack(tmp_path / "other")

    try:
        with ThreadPoolExecutor(2) as pool:
            for up in [pool.submit(Stack(other.folder).up) for _ in range(2)]:
                up.result()

        # The folder of each service's process says whose it is; children of PostgreSQL aside.
        started = [p for p in processes_in(other.folder) if p.pid in pids(other)]
        assert len(started) == len(SERVICES)
        assert set(other.environment().values()).isdisjoint(own_stack.environment().values())
    finally:
        other.wipe()
    assert processes_in(other.folder) == []
    assert not other.folder.exists()
    assert pids(own_stack) == before


def test_down_leaves_no_process(own_stack: Stack) -> None:
    own_stack.up()
    family = processes_in(own_stack.folder)

    own_stack.down()
    own_stack.down()

    assert len(family) >= len(SERVICES)
    assert processes_in(own_stack.folder) == []
    assert {status.state for status in own_stack.status()} == {Condition.STOPPED}
