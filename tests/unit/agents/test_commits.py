"""What one assignment commits, and what an earlier one may no longer say."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agents.commits import Commits
from agents.suspects import Suspects
from agents.track import Partition, Tracks
from cortex_stream.kafka.commits import (
    Membership,
    read_commits,
    read_ends,
    read_membership,
    seek_to,
    try_commit,
)
from cortex_stream.scheduling.admission import Admission, Bound
from cortex_stream.task_scope import TaskScope

AT = Partition("t", 0)
PLENTY = 10**9


class Group:
    """A group of one, and its commits; a commit waits until it `may_end`."""

    def __init__(self) -> None:
        self.generation = 0
        self.commits: dict[Partition, tuple[int, str]] = {AT: (5, "")}
        self.asked: list[Membership] = []
        self.reads = self.forgetful_reads = 0
        self.sought: dict[Partition, int] = {}
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def beside(self, work: Callable[..., Awaitable[Any]], *asked: Any) -> Any:
        if work is read_membership:
            return Membership(self.generation, "me", None)
        if work is read_commits:
            self.reads += 1
            return {} if self.reads <= self.forgetful_reads else dict(self.commits)
        if work is seek_to:
            (self.sought,) = asked
            return None
        if work is read_ends:
            return {}
        assert work is try_commit
        member, commits = asked
        self.asked.append(member)
        self.began.set()
        await self.may_end.wait()
        if member.generation != self.generation:
            return False
        self.commits.update(commits)
        return True


def delivered(*offsets: int) -> Tracks:
    tracks = Tracks(Admission({"t": Bound(PLENTY, PLENTY)}, total_bytes=PLENTY))
    tracks.deliver(AT, [(offset, 1) for offset in offsets])
    return tracks


async def begun(group: Group, tracks: Tracks) -> Commits:
    commits = Commits(tracks, group.beside)
    await commits.take_over([AT])
    commits.begin(Suspects({}))
    return commits


async def test_what_is_committed_is_committed_as_the_member_of_the_assignment() -> None:
    group = Group()
    group.generation = 7
    commits = await begun(group, delivered(5, 6))

    assert await commits.may_begin({AT: range(5, 7)})

    assert group.asked == [Membership(7, "me", None)]


async def test_an_assignment_begins_once_the_last_commit_of_the_one_before_has_ended() -> None:
    # given
    group = Group()
    tracks = delivered(5, 6)
    commits = await begun(group, tracks)
    tracks.finish(tracks.deliver(AT, [(7, 1)]), 5)
    group.may_end.clear()
    async with TaskScope() as scope:
        committing = scope.start(commits.go_on(), name="commit")
        await group.began.wait()

        # when
        tracks.abandon()
        group.generation = 1
        taking_over = scope.start(commits.take_over([AT]), name="take over")
        for _ in range(5):
            await asyncio.sleep(0)

        # then
        assert not taking_over.done()
        group.commits[AT] = (9, "until=40")  # by somebody else
        group.may_end.set()
        assert await taking_over == {AT: range(9, 40)}
        assert not await committing
        assert commits.offset(AT) == 9


async def test_nothing_begins_under_a_commit_that_may_say_less_than_the_one_before() -> None:
    # given: much began before the last commit, so that it says that a lot more may
    group = Group()
    tracks = delivered(*range(5, 1005))
    commits = await begun(group, tracks)
    assert await commits.may_begin({AT: range(5, 6)})
    assert await commits.may_begin({AT: range(6, 1005)})
    _, said = group.commits[AT]
    assert await commits.may_begin({AT: range(1005, 1100)})
    assert group.commits[AT][1] == said  # it covered them: nothing was committed

    # when: little has begun since
    tracks.finish(tracks.deliver(AT, [(1005, 1)]), 5)
    group.began.clear()
    group.may_end.clear()
    async with TaskScope() as scope:
        committing = scope.start(commits.go_on(), name="commit")
        await group.began.wait()
        beginning = scope.start(commits.may_begin({AT: range(1100, 1200)}), name="begin")
        for _ in range(5):
            await asyncio.sleep(0)

        # then
        assert not beginning.done()
        group.may_end.set()
        assert await beginning
        assert await committing

    until = int(group.commits[AT][1].removeprefix("until="))
    assert until >= 1200


async def test_an_assignment_reads_on_where_the_group_has_committed() -> None:
    group = Group()

    await begun(group, delivered(5, 6))

    assert group.sought == {AT: 5}


async def test_commits_that_a_coordinator_has_for_a_moment_not_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.commits._READ_AGAIN_S", 0.0)
    group = Group()
    commits = await begun(group, delivered(5, 6))

    group.forgetful_reads = group.reads + 3
    await commits.take_over([AT])

    assert commits.offset(AT) == 5


async def test_a_group_that_was_set_back_is_believed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.commits._READ_AGAIN_S", 0.0)
    group = Group()
    commits = await begun(group, delivered(5, 6))

    group.commits[AT] = (2, "")
    await commits.take_over([AT])
    reads = group.reads
    await commits.take_over([AT])

    assert commits.offset(AT) == 2
    assert group.reads == reads + 1
