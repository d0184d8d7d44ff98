"""Apache Kafka: one node that is broker and controller (KRaft)."""

import os
import secrets
import shutil
import signal
import socket
import struct
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cortex_stream.devstack import process, programs
from cortex_stream.devstack.jars import KAFKA_VERSION, fetch_jars
from cortex_stream.devstack.ports import HOST
from cortex_stream.devstack.progress import Progress
from cortex_stream.errors import StackFailed

USERNAME: Final = "cortex"
MECHANISM: Final = "SCRAM-SHA-512"

_JVM: Final = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # ready after 1.6 s instead of 2.6 s, for half the CPU time
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
# The results topic's max.message.bytes is 8 MiB of record batch; the slack is for other topics.
_MESSAGE_MAX_BYTES: Final = (8 << 20) + (64 << 10)
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": (
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL"
    ),
    "auto.create.topics.enable": "false",  # a misspelt topic must fail here, as in production
    # A killed broker is let in again only after its old session has ended; the default is 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(_MESSAGE_MAX_BYTES),
    "replica.fetch.max.bytes": str(_MESSAGE_MAX_BYTES),
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),  # of the heap; the default is 128 MiB
}


@dataclass(frozen=True, slots=True)
class Kafka:
    """How Kafka is run.

    Attributes:
        port: of the open listener, PLAINTEXT.
        controller_port: of the controller; nobody else uses it.
        secure_port: of the listener that demands TLS and a password; None: there is none.
    """

    folder: Path
    port: int
    controller_port: int
    secure_port: int | None
    name: str = "kafka"
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    worth_another_start: str | None = None

    @property
    def authority_file(self) -> Path:
        """The certificate (PEM) that clients of the secure listener must trust."""
        return self.folder / "ca.pem"

    @property
    def password_file(self) -> Path:
        """The password of `USERNAME`, mode 0600."""
        return self.folder / "password"

    def prepare(self, progress: Progress, /) -> None:
        """Write the configuration; the first time also make certificates and format the disk."""
        jars = fetch_jars(progress)
        properties = "".join(f"{key}={value}\n" for key, value in self._settings().items())
        (self.folder / "server.properties").write_text(properties, encoding="utf-8")
        classpath = os.pathsep.join(map(str, jars))
        self._write_arguments("run.args", classpath, "kafka.Kafka server.properties")
        complete = self.folder / "complete"
        if complete.exists():
            return
        data = self.folder / "data"
        if data.exists():  # an interrupted attempt
            shutil.rmtree(data)
        cluster_id = encode_cluster_id(uuid.uuid4())
        command = f"kafka.tools.StorageTool format -t {cluster_id} -c server.properties"
        if self.secure_port is not None:
            password = self._make_secrets()
            command += f' --add-scram "{MECHANISM}=[name={USERNAME},password={password}]"'
        arguments = self._write_arguments("format.args", classpath, command)
        try:
            done = process.run([programs.java(), *_JVM, f"@{arguments}"], folder=self.folder)
        finally:
            arguments.unlink()  # may hold the password
        if done.returncode != 0:
            raise StackFailed(f"formatting Kafka's {data}:\n{done.stdout}{done.stderr}".strip())
        complete.touch()

    def command(self) -> Sequence[str | Path]:
        """Return the broker's command line."""
        return [programs.java(), *_JVM, "@run.args"]

    def answers(self) -> bool:
        """Tell whether the broker is a member of its cluster: its metadata name one broker."""
        # Metadata request, version 4: no topics, create none. Kafka protocol guide, api key 3.
        request = struct.pack(">hhihib", 3, 4, 1, -1, 0, 0)
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(struct.pack(">i", len(request)) + request)
                answer = connection.makefile("rb").read(16)
        except OSError:
            return False
        if len(answer) < 16:  # noqa: PLR2004 (four numbers of 4 bytes, see below)
            return False
        _size, _correlation_id, _throttle_ms, brokers = struct.unpack(">iiii", answer)
        return bool(brokers > 0)

    def version(self) -> str:
        """Return such as `4.1.0`."""
        return KAFKA_VERSION

    def _settings(self) -> Mapping[str, str]:
        listeners = {"PLAINTEXT": self.port}
        secure = {}
        if self.secure_port is not None:
            listeners["SASL_SSL"] = self.secure_port
            secure = {
                "sasl.enabled.mechanisms": MECHANISM,
                f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": "server.pem",
            }
        open_to_clients = ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())
        return {
            **_SETTINGS,
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "listeners": f"{open_to_clients},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": open_to_clients,
            "log.dirs": str(self.folder / "data"),
            **secure,
        }

    def _make_secrets(self) -> str:
        try:
            from cortex_stream.devstack.tls import write_certificates  # noqa: PLC0415 (an extra)
        except ModuleNotFoundError as error:
            raise StackFailed(
                "making certificates: the package cryptography is not installed",
                repair="pip install 'cortex-stream[stack]'",
            ) from error
        write_certificates(
            authority_file=self.authority_file, server_file=self.folder / "server.pem"
        )
        password = secrets.token_hex(24)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(password, encoding="utf-8")
        return password

    def _write_arguments(self, name: str, classpath: str, command: str) -> Path:
        """Write a Java argument file, which other users cannot read as they can a command line."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(f'-cp "{classpath}"\n{command}\n', encoding="utf-8")
        return path


def encode_cluster_id(drawn: uuid.UUID) -> str:
    """Return `drawn` as Kafka writes ids: 22 characters of URL-safe base64.

    The first bit is cleared, since one id in 64 would begin with `-`, and Kafka's own tool would
    take it for an option.
    """
    number = drawn.int & ~(1 << 127)
    return urlsafe_b64encode(number.to_bytes(16)).decode().rstrip("=")
