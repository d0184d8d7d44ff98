"""What `cortex-stream doctor` checks. Each check looks at one thing and changes nothing.

Invariant: no check puts an address with its password, or a setting marked secret, into its text.
"""

import errno
import importlib.util
import os
import resource
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import redis.asyncio
import redis.exceptions
from pydantic import SecretStr

from cortex_stream.bootstrap.pipelines import load_pipelines
from cortex_stream.environment import cache_folder
from cortex_stream.errors import CortexError, OperatorError
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.registry.store import ModelStore
from cortex_stream.settings.tree import Settings

_OURS: Final = ("agents", "cortex_stream", "schemas", "topics")
_ROOT: Final = Path(__file__).resolve().parents[2]
_TIMEOUT_S: Final = 5.0
_FREE_BYTES: Final = 2 << 30  # a model, its download, and Kafka's first segments
# Four lanes of 12 partitions, their fetchers, sessions and pages take some 200.
_FILE_DESCRIPTORS: Final = 1024
_PORTS_TRIED: Final = 100  # as the worker does


@dataclass(frozen=True, slots=True)
class Check:
    """What was found; a failed one says which command repairs it.

    Attributes:
        needed: a worker with these settings cannot do without it, or does less than they ask for.
    """

    name: str
    ok: bool
    detail: str
    repair: str | None = None
    needed: bool = True

    @property
    def failed(self) -> bool:
        """Whether a worker would miss it."""
        return self.needed and not self.ok


def local_checks() -> Iterator[Check]:
    """Look at what needs no settings: packages and limits of the process."""
    yield _packages()
    yield _onnxruntime()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _FILE_DESCRIPTORS
    yield Check(
        "file descriptors",
        enough,
        f"at most {'any number' if soft == resource.RLIM_INFINITY else soft}",
        None if enough else f"ulimit -n {_FILE_DESCRIPTORS * 4}",
    )


async def checks_of(settings: Settings) -> AsyncIterator[Check]:
    """Look at everything that the settings name, one after the other; each within 5 seconds."""
    for check in await _kafka(settings):
        yield check
    yield _pipelines(settings)
    yield await _redis(settings.redis_url)
    yield await _postgres(settings.postgres_url)
    store = ModelStore(settings.models)
    for reference in settings.models.serve:
        yield _model(store, reference)
    yield _disk(settings.models.folder)
    yield _disk(cache_folder())
    yield _web(settings)


def _packages() -> Check:
    foreign = []
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec else []
        if [Path(place).resolve() for place in places] != [_ROOT / name]:
            foreign.append(f"{name} comes from {', '.join(places) or 'nowhere'}")
    return Check(
        "packages",
        not foreign,
        "; ".join(foreign) or f"{', '.join(_OURS)} in {_ROOT}",
        "uninstall the package that brings them, then: pip install -e ." if foreign else None,
    )


def _onnxruntime() -> Check:
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        repair = "pip uninstall -y onnxruntime onnxruntime-gpu, then: pip install -e '.[cpu]'"
        return Check("onnxruntime", ok=False, detail=f"both {' and '.join(found)}", repair=repair)
    if not found:
        return Check("onnxruntime", ok=False, detail="missing", repair="pip install -e '.[cpu]'")
    return Check("onnxruntime", ok=True, detail=found[0])


async def _kafka(settings: Settings) -> list[Check]:
    try:
        async with TopicAdmin(settings) as admin:
            plan = await admin.plan()
    except OperatorError as error:
        return [Check("kafka", ok=False, detail=str(error), repair=error.repair)]
    differing = [f"{each.name}: {each}" for each in plan.blocking]
    return [
        Check("kafka", ok=True, detail=f"answers at {settings.kafka_brokers}"),
        Check(
            "topics",
            not differing,
            "; ".join(differing) or "as the catalogue says",
            "cortex-stream topics apply" if differing else None,
        ),
    ]


def _pipelines(settings: Settings) -> Check:
    try:
        pipelines = load_pipelines(settings.pipelines)
    except OperatorError as error:
        return Check("pipelines", ok=False, detail=str(error), repair=error.repair)
    return Check("pipelines", ok=True, detail=", ".join(each.name for each in pipelines))


async def _redis(url: SecretStr | None) -> Check:
    if url is None:
        return Check(
            "redis", ok=False, detail="REDIS_URL is not set: no dedupe window", needed=False
        )
    place = _place(url)
    repair = "cortex-stream stack up, or set REDIS_URL"
    try:
        client = redis.asyncio.from_url(
            url.get_secret_value(), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        async with client:
            version = (await client.info("server"))["redis_version"]
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        return Check("redis", ok=False, detail=f"{place}: {_reason(error, url)}", repair=repair)
    return Check("redis", ok=True, detail=f"{version} at {place}")


async def _postgres(url: SecretStr) -> Check:
    """Look at PostgreSQL, which workers do not ask yet: what is wrong there is worth a note."""
    place = _place(url)
    try:
        connection = await asyncpg.connect(url.get_secret_value(), timeout=_TIMEOUT_S)
        try:
            version = await connection.fetchval("show server_version", timeout=_TIMEOUT_S)
            vector = await connection.fetchval(
                "select default_version from pg_available_extensions where name = 'vector'",
                timeout=_TIMEOUT_S,
            )
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        detail = f"{place}: {_reason(error, url)}; workers do not use it yet"
        return Check("postgres", ok=False, detail=detail, needed=False)
    if vector is None:
        detail = f"{version} at {place} has no extension vector; workers do not use it yet"
        return Check("postgres", ok=False, detail=detail, needed=False)
    return Check("postgres", ok=True, detail=f"{version} with vector {vector} at {place}")


def _model(store: ModelStore, reference: str) -> Check:
    try:
        version = store.resolve(reference)
    except CortexError as error:
        name = reference.partition("@")[0]
        repair = f"cortex-stream models pull {name}"
        return Check(f"model {reference}", ok=False, detail=str(error), repair=repair)
    detail = f"intact, {version.digest[:19]}… in {version.folder}"
    return Check(f"model {reference}", ok=True, detail=detail)


def _disk(folder: Path) -> Check:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    enough = free_bytes >= _FREE_BYTES
    return Check(
        "disk",
        enough,
        f"{free_bytes / 1e9:.1f} GB free for {folder}",
        None if enough else f"free {_FREE_BYTES / 1e9:.1f} GB there, or choose another folder",
    )


def _web(settings: Settings) -> Check:
    host, first = settings.web.host, settings.web.port
    for port in range(first, first + _PORTS_TRIED):
        try:
            with socket.create_server((host, port), family=_family(host)):
                taken = "" if port == first else f"; {first} is taken"
                return Check("web port", ok=True, detail=f"{port} on {host} is free{taken}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                detail = f"listening on {host}:{port}: {os.strerror(error.errno or 0)}"
                return Check(
                    "web port", ok=False, detail=detail, repair="export CORTEX_WEB__HOST=127.0.0.1"
                )
    detail = f"{first} to {first + _PORTS_TRIED - 1} on {host} are all taken"
    return Check("web port", ok=False, detail=detail, repair="export CORTEX_WEB__PORT=0")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _place(url: SecretStr) -> str:
    """Return host and port of an address: never user, password or query."""
    try:
        parts = urlsplit(url.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an address that cannot be read"
    return f"{host or 'unknown host'}:{port or 'default port'}"


def _reason(error: Exception, url: SecretStr) -> str:
    """Return what went wrong, unless it quotes the address."""
    text = str(error) or type(error).__name__
    secret = url.get_secret_value()
    try:
        password = urlsplit(secret).password
    except ValueError:
        password = None
    quoted = secret in text or (password is not None and password in text)
    return type(error).__name__ if quoted else text
