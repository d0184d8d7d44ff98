import socket
from pathlib import Path

import pytest

from cortex_stream.devstack.progress import Quiet
from cortex_stream.devstack.state import State, choose_ports, replace_taken_ports
from cortex_stream.errors import StackFailed


class Heard(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    state = State(secure=True, ports={"kafka": 1, "redis": 2})

    state.write(tmp_path)

    assert State.read_or_none(tmp_path) == state


def test_a_folder_without_a_stack_remembers_nothing(tmp_path: Path) -> None:
    assert State.read_or_none(tmp_path) is None


def test_an_unreadable_memory_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{", encoding="utf-8")

    with pytest.raises(StackFailed, match=str(tmp_path)):
        State.read_or_none(tmp_path)


@pytest.mark.parametrize("secure", [False, True])
def test_every_listener_gets_a_port_of_its_own(*, secure: bool) -> None:
    chosen = choose_ports(secure=secure, usual=False)

    assert len(set(chosen.values())) == len(chosen)
    assert ("kafka-secure" in chosen) is secure


def test_a_stopped_service_leaves_a_port_that_others_took() -> None:
    state = State(secure=False, ports=choose_ports(secure=False, usual=False))
    heard = Heard()

    with socket.create_server(("127.0.0.1", state.ports["redis"])):
        moved = replace_taken_ports(state, running=set(), progress=heard)

    assert moved.ports["redis"] != state.ports["redis"]
    assert moved.ports | {"redis": 0} == state.ports | {"redis": 0}
    [line] = heard.lines
    assert "redis moves to" in line


def test_a_running_service_keeps_the_port_it_listens_on() -> None:
    state = State(secure=False, ports=choose_ports(secure=False, usual=False))

    with socket.create_server(("127.0.0.1", state.ports["kafka-controller"])):
        kept = replace_taken_ports(state, running={"kafka"}, progress=Quiet())

    assert kept == state
