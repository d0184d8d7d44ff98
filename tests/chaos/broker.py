"""Kafka and Redis of a chaos run alone, with a second Kafka listener that leads through the proxy."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from cortex_stream.devstack import ports
from cortex_stream.devstack.kafka import Kafka
from cortex_stream.devstack.ports import HOST
from cortex_stream.devstack.progress import Quiet
from cortex_stream.devstack.redis import Redis
from cortex_stream.devstack.service import Service


@dataclass(frozen=True, slots=True)
class ProxiedKafka(Kafka):
    """Clients of the second listener are told to come back through `proxy_port`."""

    listener_port: int = 0
    proxy_port: int = 0

    def _settings(self) -> dict[str, str]:
        usual = Kafka._settings(self)
        return {
            **usual,
            "listeners": f"{usual['listeners']},PROXIED://{HOST}:{self.listener_port}",
            "advertised.listeners": (
                f"{usual['advertised.listeners']},PROXIED://{HOST}:{self.proxy_port}"
            ),
            "listener.security.protocol.map": (
                f"{usual['listener.security.protocol.map']},PROXIED:PLAINTEXT"
            ),
            "group.min.session.timeout.ms": "1000",  # a killed member is missed sooner
            "broker.session.timeout.ms": "3000",  # and so is a killed broker, which may then return
            "broker.heartbeat.interval.ms": "500",
        }


class Services:
    """What workers need, in `folder`. Leaving it stops both."""

    def __init__(self, folder: Path) -> None:
        drawn: list[int] = []
        for _ in range(5):
            drawn.append(ports.choose(preferred=None, avoid=drawn))
        self.direct = f"{HOST}:{drawn[0]}"
        self.listener_port, self.proxy_port = drawn[2], drawn[3]
        self.proxied = f"{HOST}:{self.proxy_port}"
        self.redis_url = f"redis://{HOST}:{drawn[4]}/0"
        kafka = ProxiedKafka(
            folder / "kafka",
            drawn[0],
            drawn[1],
            None,
            listener_port=drawn[2],
            proxy_port=drawn[3],
        )
        self._services = {
            "kafka": Service(kafka),
            "redis": Service(Redis(folder / "redis", drawn[4])),
        }

    def __enter__(self) -> Self:
        for name in self._services:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._services:
            self.send(name, signal.SIGCONT)
            self.stop(name)

    def start(self, name: str = "kafka") -> None:
        """Start it on the data it left; return once it answers."""
        self._services[name].start(Quiet())

    def stop(self, name: str = "kafka") -> None:
        """Stop it cleanly."""
        self._services[name].stop(Quiet())

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        running = self._services[name].process_or_none()
        if running is not None:
            running.send_signal(number)
            if number is signal.SIGKILL:
                psutil.wait_procs([running], timeout=10)
