import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cortex_stream.artifacts import Artifact, fetch
from cortex_stream.errors import ArtifactFailed

CONTENT = bytes(range(256)) * 4096  # 1 MiB
JAR = Artifact("org.example.deep", "thing", "1.2", hashlib.sha256(CONTENT).hexdigest())


class Repository(ThreadingHTTPServer):
    """A Maven repository whose misbehaviour is scripted, request by request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Callable[[_Handler], None]] = []  # then: whole
        self.ranges: list[str | None] = []  # of every request
        self.paths: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/maven"


class _Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        self.server.paths.append(self.path)
        behaviour = self.server.script.pop(0) if self.server.script else whole
        behaviour(self)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def answer(self, body: bytes, *, announced_bytes: int | None = None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(announced_bytes or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def rest(self) -> bytes:
        start = self.headers["Range"]
        return CONTENT[int(start.removeprefix("bytes=").rstrip("-")) if start else 0 :]


def whole(handler: _Handler) -> None:
    handler.answer(handler.rest(), status=206 if handler.headers["Range"] else 200)


def cut_after(size_bytes: int) -> Callable[[_Handler], None]:
    def behave(handler: _Handler) -> None:
        rest = handler.rest()
        status = 206 if handler.headers["Range"] else 200
        handler.answer(rest[:size_bytes], announced_bytes=len(rest), status=status)

    return behave


def ignores_range(handler: _Handler) -> None:
    handler.answer(CONTENT)


def lies(handler: _Handler) -> None:
    handler.answer(b"<html>Please log in to the hotel's network</html>")


def has_nothing_beyond(handler: _Handler) -> None:
    handler.answer(b"", status=416)


def fails_with(status: int) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(b"sorry", status=status)


def falls_silent(handler: _Handler) -> None:
    handler.answer(CONTENT[:1000], announced_bytes=len(CONTENT))
    handler.server.over.wait(10)


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses_s() -> list[float]:
    return []


@pytest.fixture
def download(repository: Repository, pauses_s: list[float], tmp_path: Path) -> Callable[[], Path]:
    def run() -> Path:
        return fetch(
            JAR, folder=tmp_path, base_url=repository.url, pause=pauses_s.append, timeout_s=0.5
        )

    return run


def part_of(folder: Path) -> Path:
    return folder / "org/example/deep/thing/1.2/thing-1.2.part"


def test_an_artifact_lands_under_its_maven_path(
    repository: Repository, download: Callable[[], Path], tmp_path: Path
) -> None:
    path = download()

    assert path == tmp_path / "org/example/deep/thing/1.2/thing-1.2.jar"
    assert path.read_bytes() == CONTENT
    assert repository.paths == ["/maven/org/example/deep/thing/1.2/thing-1.2.jar"]
    assert not part_of(tmp_path).exists()


def test_progress_grows_to_the_announced_size(repository: Repository, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    fetch(
        JAR,
        folder=tmp_path,
        base_url=repository.url,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in seen} == {len(CONTENT)}


def test_a_cut_connection_is_resumed_where_it_stopped(
    repository: Repository, download: Callable[[], Path], pauses_s: list[float]
) -> None:
    repository.script = [cut_after(300_000), cut_after(200_000)]

    path = download()

    assert path.read_bytes() == CONTENT
    assert repository.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert pauses_s == [0.5, 0.5]  # bytes came, so the back-off begins anew


def test_a_slow_link_that_advances_is_never_given_up(
    repository: Repository, download: Callable[[], Path]
) -> None:
    repository.script = [cut_after(100_000) for _ in range(9)]

    assert download().read_bytes() == CONTENT


def test_a_part_left_by_an_earlier_process_is_continued(
    repository: Repository, download: Callable[[], Path], tmp_path: Path
) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(CONTENT[:1000])

    path = download()

    assert path.read_bytes() == CONTENT
    assert repository.ranges == ["bytes=1000-"]


def test_a_part_that_was_complete_already_is_accepted(
    repository: Repository, download: Callable[[], Path], tmp_path: Path
) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(CONTENT)
    repository.script = [has_nothing_beyond]

    assert download().read_bytes() == CONTENT


def test_a_spoilt_part_is_replaced_from_zero(
    repository: Repository, download: Callable[[], Path], tmp_path: Path
) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(b"x" * 1000)

    path = download()

    assert path.read_bytes() == CONTENT
    assert repository.ranges == ["bytes=1000-", None]


def test_a_server_that_ignores_range_sends_everything_again(
    repository: Repository, download: Callable[[], Path]
) -> None:
    repository.script = [cut_after(300_000), ignores_range]

    assert download().read_bytes() == CONTENT


def test_a_server_that_ignores_range_and_always_cuts_is_given_up(
    repository: Repository, download: Callable[[], Path]
) -> None:
    def always_cuts(handler: _Handler) -> None:
        handler.answer(CONTENT[:1000], announced_bytes=len(CONTENT))

    repository.script = [always_cuts] * 20

    with pytest.raises(ArtifactFailed, match="1000 of 1048576 bytes"):
        download()

    assert len(repository.ranges) == 6  # one that brought new bytes, five that did not


def test_bytes_with_another_digest_are_deleted_and_named(
    repository: Repository, download: Callable[[], Path], tmp_path: Path
) -> None:
    repository.script = [lies]

    with pytest.raises(ArtifactFailed, match=JAR.sha256) as failure:
        download()

    assert "49 bytes" in str(failure.value)
    assert failure.value.repair is not None
    assert not part_of(tmp_path).exists()
    assert not part_of(tmp_path).with_suffix(".jar").exists()


def test_a_busy_server_is_asked_five_times_with_growing_pauses(
    repository: Repository, download: Callable[[], Path], pauses_s: list[float]
) -> None:
    repository.script = [fails_with(503)] * 20

    with pytest.raises(ArtifactFailed, match="503"):
        download()

    assert len(repository.ranges) == 5
    assert pauses_s == [0.5, 1.0, 2.0, 4.0]


def test_a_server_that_recovers_is_forgiven(
    repository: Repository, download: Callable[[], Path]
) -> None:
    repository.script = [fails_with(503), fails_with(429)]

    assert download().read_bytes() == CONTENT


def test_a_missing_artifact_is_reported_at_once(
    repository: Repository, download: Callable[[], Path], pauses_s: list[float]
) -> None:
    repository.script = [fails_with(404)]

    with pytest.raises(ArtifactFailed, match="404"):
        download()

    assert pauses_s == []


def test_a_connection_that_falls_silent_counts_as_cut(
    repository: Repository, download: Callable[[], Path]
) -> None:
    repository.script = [falls_silent]

    assert download().read_bytes() == CONTENT
    assert repository.ranges == [None, "bytes=1000-"]


def test_nobody_listening_is_an_artifact_failure(
    download: Callable[[], Path], repository: Repository, pauses_s: list[float]
) -> None:
    repository.socket.close()

    with pytest.raises(ArtifactFailed, match="refused"):
        download()

    assert len(pauses_s) == 4


def test_a_kept_artifact_is_not_asked_for_again(
    repository: Repository, download: Callable[[], Path]
) -> None:
    download()

    download()

    assert len(repository.ranges) == 1


def test_a_kept_artifact_that_was_damaged_is_replaced(
    repository: Repository, download: Callable[[], Path]
) -> None:
    download().write_bytes(b"bit rot")

    assert download().read_bytes() == CONTENT
    assert len(repository.ranges) == 2


def test_many_at_once_download_it_once(
    repository: Repository, download: Callable[[], Path]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: download(), range(8)))

    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(repository.ranges) == 1


def test_a_cache_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()

    with pytest.raises(ArtifactFailed, match=str(no_folder)) as failure:
        fetch(JAR, folder=no_folder, base_url=repository.url)

    assert "XDG_CACHE_HOME" in (failure.value.repair or "")
