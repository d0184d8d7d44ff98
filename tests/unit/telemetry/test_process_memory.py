"""How the limit is found. Control groups are files, so real files stand for them."""

from pathlib import Path

import psutil
import pytest

from cortex_stream.telemetry.process_memory import (
    MemoryUse,
    ProcessMemory,
    give_back_free_memory,
)

MIB = 1 << 20
MACHINE_BYTES = psutil.virtual_memory().total


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    return tmp_path / "mount"


def group(
    folder: Path, *, limit: object, used_mib: int, idle_mib: int = 0, v1: bool = False
) -> None:
    """Write a memory control group as the kernel shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, used_name, idle_key = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if v1
        else ("memory.max", "memory.current", "inactive_file")
    )
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{idle_key} {idle_mib * MIB}\nother 7\n")


def measured(tmp_path: Path, mount: Path, groups: str, *, limit_bytes: int = 0) -> MemoryUse:
    member = tmp_path / "groups"
    member.write_text(groups)
    return ProcessMemory(limit_bytes=limit_bytes, groups=member, mount=mount).measure()


def test_a_containers_limit_counts_all_but_what_the_kernel_can_forget(
    tmp_path: Path, mount: Path
) -> None:
    group(mount / "pod", limit=512 * MIB, used_mib=300, idle_mib=40)

    use = measured(tmp_path, mount, "0::/pod\n")

    assert use == MemoryUse(260 * MIB, 512 * MIB, "container")
    assert use.ratio == pytest.approx(0.508, abs=0.001)


def test_the_older_control_groups_are_read_as_well(tmp_path: Path, mount: Path) -> None:
    group(mount / "memory/docker/1", limit=512 * MIB, used_mib=300, idle_mib=40, v1=True)

    use = measured(tmp_path, mount, "9:name=systemd:/\n4:cpu,memory:/docker/1\n0::/\n")

    assert use == MemoryUse(260 * MIB, 512 * MIB, "container")


def test_a_group_whose_path_is_the_hosts_is_found_at_the_mount(tmp_path: Path, mount: Path) -> None:
    group(mount, limit=512 * MIB, used_mib=100)

    assert measured(tmp_path, mount, "0::/docker/1\n").limit_bytes == 512 * MIB


def test_of_nested_groups_the_one_nearest_to_its_limit_counts(tmp_path: Path, mount: Path) -> None:
    group(mount / "slice", limit=1000 * MIB, used_mib=900)
    group(mount / "slice/pod", limit=500 * MIB, used_mib=100)

    assert measured(tmp_path, mount, "0::/slice/pod\n").limit_bytes == 1000 * MIB


@pytest.mark.parametrize("limit", ["max", 1 << 62, MACHINE_BYTES, 0, "nonsense"])
def test_a_group_without_a_limit_of_its_own_leaves_the_machines(
    tmp_path: Path, mount: Path, limit: object
) -> None:
    group(mount / "pod", limit=limit, used_mib=100)

    use = measured(tmp_path, mount, "0::/pod\n")

    assert (use.limit_bytes, use.source) == (MACHINE_BYTES, "machine")
    assert 0 < use.used_bytes < MACHINE_BYTES


def test_a_limit_that_is_set_counts_this_process_alone(tmp_path: Path, mount: Path) -> None:
    use = measured(tmp_path, mount, "0::/\n", limit_bytes=8 << 30)

    assert (use.limit_bytes, use.source) == (8 << 30, "setting")
    assert use.used_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_a_limit_that_is_set_never_hides_a_container_that_is_nearer_to_its_own(
    tmp_path: Path, mount: Path
) -> None:
    group(mount / "pod", limit=512 * MIB, used_mib=510)

    assert measured(tmp_path, mount, "0::/pod\n", limit_bytes=64 << 30).source == "container"


def test_a_group_that_is_gone_and_a_system_without_groups_leave_the_machines(
    tmp_path: Path, mount: Path
) -> None:
    (mount / "pod").mkdir(parents=True)
    (mount / "pod/memory.max").write_text("1000000")
    nowhere = ProcessMemory(groups=tmp_path / "none", mount=mount)

    assert measured(tmp_path, mount, "0::/pod\n").source == "machine"
    assert nowhere.measure().source == "machine"


def test_this_process_is_measured_where_it_runs() -> None:
    use = ProcessMemory().measure()

    assert 0 < use.used_bytes < use.limit_bytes
    assert 0 < use.ratio < 1


def test_giving_back_free_memory_harms_nothing() -> None:
    before_bytes = psutil.Process().memory_info().rss

    give_back_free_memory()

    assert psutil.Process().memory_info().rss <= before_bytes + 4 * MIB
