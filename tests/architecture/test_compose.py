"""docker-compose.yml describes services that are bounded, unprivileged and named as we read them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cortex_stream.cli.main import load_command
from cortex_stream.settings.tree import Settings, load_settings

Service = dict[str, Any]

WITHOUT_USER = {"kafka": "apache/kafka drops to its own user by itself"}


@pytest.fixture(scope="module")
def services(repository: Path) -> dict[str, Service]:
    text = (repository / "docker-compose.yml").read_text(encoding="utf-8")
    found: dict[str, Service] = yaml.safe_load(text)["services"]
    return found


def ours(services: dict[str, Service]) -> dict[str, Service]:
    return {name: service for name, service in services.items() if "build" in service}


def is_job(service: Service) -> bool:
    return bool(service["restart"] == "no")


def size(text: str) -> float:
    """Return CPUs, or bytes."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)


def known_variables(tree: type[BaseModel], prefix: str = "CORTEX_") -> set[str]:
    """Return the variables that the settings read, sections included."""
    found = set()
    for name, field in tree.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= known_variables(field.annotation, f"{prefix}{name.upper()}__")
        else:
            found.add(str(field.validation_alias or f"{prefix}{name.upper()}"))
    return found


def test_half_of_every_limit_is_reserved(services: dict[str, Service]) -> None:
    for name, service in services.items():
        limits, reserved = (
            service["deploy"]["resources"][part] for part in ("limits", "reservations")
        )

        assert set(limits) == {"cpus", "memory"}, name
        assert {key: size(value) / 2 for key, value in limits.items()} == {
            key: size(value) for key, value in reserved.items()
        }, name


def test_a_service_tells_its_health_and_a_job_is_waited_for(services: dict[str, Service]) -> None:
    awaited = {
        name
        for service in services.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_completed_successfully"
    }

    assert {name for name, service in services.items() if is_job(service)} == awaited
    for name, service in services.items():
        if name not in awaited and name not in ours(services):  # our image has its own check
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_nothing_runs_as_root_or_may_become_it(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        if name not in ours(services) and name not in WITHOUT_USER:
            assert not service["user"].startswith(("0", "root")), name


def test_our_containers_write_to_models_and_tmp_only(services: dict[str, Service]) -> None:
    for name, service in ours(services).items():
        assert service["read_only"] is True, name
        assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"], name  # noqa: S108
        assert set(service.get("volumes", [])) <= {"models:/models"}, name


def test_only_this_machine_reaches_a_published_port(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_file_holds_no_secret(services: dict[str, Service]) -> None:
    secrets = {
        key: str(value)
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if re.search("TOKEN|PASSWORD|SECRET|POSTGRES_URL", key)
    }

    assert {"CORTEX_WEB__TOKEN", "POSTGRES_PASSWORD", "POSTGRES_URL"} <= set(secrets)
    for key, value in secrets.items():
        assert re.search(r"(^|:)\$\{[A-Z_]+:\?", value), key


def test_every_variable_of_our_containers_is_a_setting(
    services: dict[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_variables(Settings)

    for name, service in ours(services).items():
        environment = service.get("environment", {})
        assert set(environment) <= known, name
        with monkeypatch.context() as container:
            for key, value in environment.items():
                container.setenv(key, interpolated(str(value)))
            load_settings()


def test_the_commands_of_the_jobs_exist_and_have_all_they_need(
    services: dict[str, Service],
) -> None:
    for service in ours(services).values():
        if is_job(service):
            first, *words = service["command"]
            command = load_command(first)
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]

            command.make_context("job", words)  # raises where one is missing or unknown


def interpolated(value: str) -> str:
    """Fill in `${NAME:-default}` as compose does; a demanded variable gets a made-up value."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "made-up", value)
