"""Fixtures for every ring: real services, and names that no other test uses."""

import asyncio
import fcntl
import secrets
import shutil
import signal
import tempfile
from asyncio import SelectorEventLoop
from collections.abc import Iterator
from os import getpid
from pathlib import Path
from typing import Any

import psutil
import pytest

from cortex_stream.devstack import programs
from cortex_stream.devstack.stack import Stack
from cortex_stream.environment import cache_folder, subprocess_environment
from cortex_stream.errors import StackFailed

pytest_plugins = ["tests.model_fixtures"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CLOSING_S = 2.0
_FOLDER_PREFIX = "cortex-test-stack-"


@pytest.fixture(scope="session", autouse=True)
def no_connection_outlives_its_loop() -> Iterator[None]:
    """Fail where an event loop ends with open connections, and name them.

    Python tells of them only when a full garbage collection happens to find them, in another test.
    """
    close = SelectorEventLoop.close

    def still_open(loop: SelectorEventLoop) -> list[Any]:
        return [each for each in loop._transports.values() if each._sock is not None]  # type: ignore[attr-defined]

    async def closed(loop: SelectorEventLoop) -> None:
        """Wait for those that are being closed: with TLS that takes an answer of the other side."""
        try:
            async with asyncio.timeout(_CLOSING_S):
                while still_open(loop):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return

    def close_and_tell(loop: SelectorEventLoop) -> None:
        left = []
        if not loop.is_closed() and loop._transports:  # type: ignore[attr-defined]
            loop.run_until_complete(closed(loop))
            left = still_open(loop)
        told = [
            f"{each.get_extra_info('socket')} of {(of := each.get_protocol())}"
            f" {getattr(of, '_state', '')}"
            for each in left
        ]
        for each in left:
            each._sock.close()
        close(loop)
        assert not told, f"nobody closed {', '.join(told)}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SelectorEventLoop, "close", close_and_tell)
        yield


@pytest.fixture(scope="session")
def stack_programs() -> None:
    """Skip at the desk, and fail in CI, where the services cannot run for want of a package."""
    try:
        programs.java()
        programs.postgres("postgres")
        programs.redis_server()
    except StackFailed as error:
        reason = f"{error}: {error.repair}"
        if subprocess_environment().get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def stack(stack_programs: None) -> Iterator[Stack]:  # noqa: ARG001
    """Running Kafka, Redis and PostgreSQL, shared by all tests of this process.

    `CORTEX_TEST_STACK=<folder>` names a stack of yours to use, and to leave as it is: not for
    processes side by side, as some tests kill the broker.
    """
    yours = subprocess_environment().get("CORTEX_TEST_STACK")
    if yours:
        stack = Stack(Path(yours))
        stack.up()
        yield stack
        return
    _wipe_what_killed_sessions_left()
    home = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{getpid()}-"))
    stack = Stack(home / "stack")
    try:
        stack.up()
        yield stack
    finally:
        stack.wipe()
        shutil.rmtree(home)


@pytest.fixture
def topic_prefix() -> str:
    """Return a prefix for topics and groups that no other test has."""
    return f"test-{secrets.token_hex(5)}"


def _wipe_what_killed_sessions_left() -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "test-stacks.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for home in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
            owner = int(home.name.removeprefix(_FOLDER_PREFIX).partition("-")[0])
            if not psutil.pid_exists(owner):
                Stack(home / "stack").wipe()
                shutil.rmtree(home, ignore_errors=True)
