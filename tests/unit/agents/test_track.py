"""The tracks against a model that is too simple to be wrong."""

from collections import defaultdict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agents.track import Partition, Track, Tracks
from cortex_stream.errors import OperatorError
from cortex_stream.scheduling.admission import Admission, Bound

ALL = 10**9
HERE = Partition("t", 0)


def _tracks() -> tuple[Tracks, Admission]:
    admission = Admission({"t": Bound(ALL, ALL)}, total_bytes=ALL)
    return Tracks(admission), admission


def _deliver(tracks: Tracks, *offsets: int) -> Track:
    return tracks.deliver(HERE, ((offset, 10) for offset in offsets))


def test_nothing_is_committed_past_the_first_unfinished_record() -> None:
    tracks, _ = _tracks()
    track = _deliver(tracks, 5, 6, 7)

    tracks.finish(track, 6)
    tracks.finish(track, 7)

    assert tracks.positions() == {HERE: 5}


def test_everything_finished_commits_the_offset_after_the_last_record() -> None:
    tracks, _ = _tracks()
    track = _deliver(tracks, 5, 6, 7)

    for offset in (7, 5, 6):
        tracks.finish(track, offset)

    assert tracks.positions() == {HERE: 8}


def test_a_gap_in_the_log_is_skipped() -> None:
    tracks, _ = _tracks()
    track = _deliver(tracks, 5, 9)

    tracks.finish(track, 5)

    assert tracks.positions() == {HERE: 9}


def test_work_that_finishes_while_closing_counts_for_the_last_commit() -> None:
    tracks, _ = _tracks()
    track = _deliver(tracks, 5, 6)

    tracks.close()
    tracks.finish(track, 5)

    assert not track.open
    assert tracks.positions() == {HERE: 6}


def test_work_that_finishes_after_the_assignment_changes_nothing() -> None:
    tracks, admission = _tracks()
    late = _deliver(tracks, 5, 6)
    tracks.abandon()
    again = _deliver(tracks, 5, 6)

    tracks.finish(late, 5)

    assert tracks.positions() == {HERE: 5}
    assert again.open
    assert admission.waiting("t") == 2


def test_finishing_twice_gives_credit_back_once() -> None:
    tracks, admission = _tracks()
    track = _deliver(tracks, 5, 6)

    tracks.finish(track, 5)
    tracks.finish(track, 5)

    assert admission.waiting("t") == 1


def test_credit_that_comes_back_is_announced() -> None:
    tracks, _ = _tracks()
    announced: list[str] = []
    tracks.on_room = announced.append
    track = _deliver(tracks, 5)

    tracks.finish(track, 5)

    assert announced == ["t"]


def test_a_log_that_went_back_is_not_read_as_if_nothing_had_happened() -> None:
    tracks, _ = _tracks()
    _deliver(tracks, 5, 6)

    with pytest.raises(OperatorError, match="deleted and created again"):
        _deliver(tracks, 0)


class TracksLikeTheModel(RuleBasedStateMachine):
    """The model keeps every record that was ever delivered, with what became of it."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission({"t": Bound(ALL, ALL), "u": Bound(ALL, ALL)}, total_bytes=ALL)
        self.tracks = Tracks(self.admission)
        self.next: dict[Partition, int] = defaultdict(int)
        self.records: dict[tuple[Partition, int], tuple[Track, bool, int]] = {}
        self.former: list[tuple[Track, int]] = []

    @rule(
        at=st.sampled_from([Partition("t", 0), Partition("t", 1), Partition("u", 0)]),
        gaps=st.lists(st.integers(0, 3), min_size=1, max_size=5),
        size=st.integers(0, 100),
    )
    def deliver(self, at: Partition, gaps: list[int], size: int) -> None:
        offsets = []
        for gap in gaps:
            offsets.append(self.next[at] + gap)
            self.next[at] = offsets[-1] + 1
        track = self.tracks.deliver(at, ((offset, size) for offset in offsets))
        for offset in offsets:
            self.records[at, offset] = (track, False, size)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        at, offset = data.draw(st.sampled_from(sorted(self.records)))
        track, _, size = self.records[at, offset]
        self.tracks.finish(track, offset)
        self.records[at, offset] = (track, True, size)

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def finish_too_late(self, data: st.DataObject) -> None:
        track, offset = data.draw(st.sampled_from(self.former))
        self.tracks.finish(track, offset)

    @rule()
    def lose_the_assignment(self) -> None:
        self.tracks.close()
        self.tracks.abandon()
        self.former += [(track, offset) for (_, offset), (track, _, _) in self.records.items()]
        for at in {at for at, _ in self.records}:
            unfinished = [
                o for (a, o), (_, done, _) in self.records.items() if a == at and not done
            ]
            self.next[at] = min(unfinished, default=self.next[at])
        self.records.clear()

    @invariant()
    def positions_are_the_first_unfinished(self) -> None:
        expected = {}
        for at in {at for at, _ in self.records}:
            unfinished = [
                o for (a, o), (_, done, _) in self.records.items() if a == at and not done
            ]
            last = max(o for a, o in self.records if a == at)
            expected[at] = min(unfinished, default=last + 1)
        assert self.tracks.positions() == expected

    @invariant()
    def credits_are_the_unfinished(self) -> None:
        for topic in ("t", "u"):
            held = [
                size
                for (at, _), (_, done, size) in self.records.items()
                if at.topic == topic and not done
            ]
            assert self.admission.waiting(topic) == len(held)
            assert self.admission.held_bytes(topic) == sum(held)


TestTracksLikeTheModel = TracksLikeTheModel.TestCase
