"""What is sampled, in which order and how often; eviction, forks and dropped episodes with known numbers."""

import numpy as np
import pytest
import torch
from scipy import stats

from agents.errors import UserError
from agents.replay import Replay, Spec


def make(tools, steps=0, **options):
    defaults = {"capacity": 1000, "streams": 2, "page_length": 10}
    feeder = tools.Feeder(Replay(tools.specs, **{**defaults, **options}))
    feeder(steps)
    return feeder


def starts(batch):
    return batch["context_id"][:, 0].tolist()


def test_shapes_types_and_entries(tools):
    replay = make(tools, 25).replay
    batch = replay.sample(6, 5, np.random.default_rng(0))
    assert batch["observation/state"].shape == (6, 5, 3) and batch["observation/state"].dtype == torch.float32
    assert batch["observation/image"].shape == (6, 5, 2, 2, 1)
    assert batch["observation/image"].dtype == torch.uint8
    assert batch["reward"].shape == (6, 5) and batch["is_first"].dtype == torch.bool
    assert batch["context_id"].dtype == torch.int32
    tools.check_entries(batch)
    steps = batch["context_id"].diff(dim=1)
    assert (steps == 1).all()  # one stream each, no gap, across pages (10) and episodes (7)


def test_uniform_over_all_starts(tools):
    """Streams of different length, an evicted page, an open page: every start is equally likely."""
    feeder = make(tools, 30, capacity=60)
    feeder(17, mask=[False, True])
    replay = feeder.replay
    # 77 records appended: the oldest full page of stream 0, then that of stream 1, is gone.
    valid = [*range(10, 30 - 5 + 1), *range(1010, 1047 - 5 + 1)]
    assert (len(replay), replay.num_starts(5)) == (57, len(valid))
    while (replay._unserved >= 5).any():
        replay.sample(1, 5, np.random.default_rng(0))
    drawn = starts(replay.sample(200 * len(valid), 5, np.random.default_rng(1)))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == valid
    assert stats.chisquare(counts).pvalue > 0.01


def test_fresh_blocks_come_first_and_once(tools):
    feeder = make(tools, 13)
    replay = feeder.replay
    generator = np.random.default_rng(0)
    first = replay.sample(3, 4, generator)
    assert first["context_id"].tolist() == [[0, 1, 2, 3], [1000, 1001, 1002, 1003], [4, 5, 6, 7]]
    assert starts(replay.sample(3, 4, generator)) == [1004, 8, 1008]
    # One record of each stream is unserved; three more make a block. It does not wait for a full batch.
    uniform = starts(replay.fork().sample(50, 4, generator))
    assert uniform != sorted(uniform) and set(uniform) <= {*range(10), *range(1000, 1010)}
    feeder(3, mask=[False, True])
    assert starts(replay.sample(1, 4, generator)) == [1012]
    assert replay._unserved.tolist() == [1, 0]


def test_fresh_data_that_is_evicted_or_dropped_is_not_served(tools):
    feeder = make(tools, 30, capacity=40, streams=1)
    feeder(25)  # episodes of 7 end at 48 and 55; the first 20 are evicted, at 51 records
    replay = feeder.replay
    assert replay.num_starts(1) == 35
    assert starts(replay.sample(2, 8, np.random.default_rng(0))) == [20, 28]
    replay.drop_open_episode(0)  # 49 to 54: unserved were 36 to 54
    assert starts(replay.sample(1, 8, np.random.default_rng(0))) == [36]
    assert replay._unserved.tolist() == [5]
    feeder(3)
    assert replay.sample(1, 8, np.random.default_rng(0))["context_id"].tolist() == [[44, 45, 46, 47, 48, 55, 56, 57]]


def test_sampling_depends_on_state_and_generator_alone(tools):
    one, other = make(tools, 33).replay, make(tools, 33).replay
    for number in range(5):
        left = one.sample(4, 6, np.random.default_rng(number))
        right = other.sample(4, 6, np.random.default_rng(number))
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert starts(one.fork().sample(9, 6, np.random.default_rng(1))) != starts(
        one.fork().sample(9, 6, np.random.default_rng(2))
    )


def test_samples_are_copies(tools):
    replay = make(tools, 20).replay
    before = tools.all_sequences(replay, 5)
    for value in replay.sample(8, 5, np.random.default_rng(0)).values():
        value.zero_()
    assert tools.all_sequences(replay, 5) == before


def test_oldest_page_of_all_streams_goes_first(tools):
    feeder = make(tools, capacity=40)
    feeder(12, mask=[False, True])
    feeder(12, mask=[True, False])
    feeder(16, mask=[False, True])
    assert len(feeder.replay) == 40
    feeder(1, mask=[True, False])  # the first page was stream 1's
    assert tools.all_sequences(feeder.replay, 1)[:14] == [*((n,) for n in range(13)), (1010,)]
    feeder(10, mask=[True, False])  # then stream 1 began its second before stream 0 began its first
    assert tools.all_sequences(feeder.replay, 1)[22:24] == [(22,), (1020,)]


def test_fork_is_isolated_both_ways(tools):
    parent = make(tools, 24)  # nothing is evicted: the page that both are filling stays, and is seen
    child = tools.Feeder(parent.replay.fork())
    child.count = parent.count + 200
    before = tools.all_sequences(parent.replay, 4)
    assert tools.all_sequences(child.replay, 4) == before
    child(40)
    assert tools.all_sequences(parent.replay, 4) == before
    after = tools.all_sequences(child.replay, 4)
    parent(40)
    parent.replay.drop_open_episode(0)
    assert tools.all_sequences(child.replay, 4) == after
    common = set(after) & set(tools.all_sequences(parent.replay, 4))
    assert common == set(before)  # the child dropped nothing, the parent only what came after the fork


def test_fork_copies_the_queue(tools):
    parent = make(tools, 12, streams=1).replay
    parent.sample(1, 5, np.random.default_rng(0))
    child = parent.fork()
    assert starts(parent.sample(1, 5, np.random.default_rng(0))) == [5]
    assert starts(child.sample(1, 5, np.random.default_rng(0))) == [5]


def test_drop_removes_the_open_episode_across_full_pages(tools):
    feeder = make(tools, streams=1)
    feeder.episode = 33
    feeder(33 + 28)  # the open episode: records 33 to 60, in pages 3 to 6
    fork = feeder.replay.fork()
    feeder.replay.drop_open_episode(0)
    assert tools.all_sequences(feeder.replay, 33) == [tuple(range(33))]
    assert feeder.replay.store.pages_in_use == 7  # the fork's
    feeder.replay.drop_open_episode(0)  # the last record is an is_last now
    assert len(feeder.replay) == 33
    feeder.count[:] = 66
    feeder(3)
    assert tools.all_sequences(feeder.replay, 36) == [(*range(33), 66, 67, 68)]
    assert tools.all_sequences(fork, 61) == [tuple(range(61))]


def test_drop_of_an_episode_whose_beginning_is_evicted(tools):
    feeder = make(tools, capacity=40, streams=1)
    feeder.episode = 100
    feeder(65)
    assert tools.all_sequences(feeder.replay, 35) == [tuple(range(30, 65))]
    feeder.replay.drop_open_episode(0)
    assert (len(feeder.replay), feeder.replay.store.pages_in_use) == (0, 0)
    feeder.count[:] = 200
    feeder(12)
    assert tools.all_sequences(feeder.replay, 12) == [tuple(range(200, 212))]


def test_drop_after_an_episode_that_broke_off(tools):
    """What is unfinished is told by the flags alone: a second drop removes an earlier unfinished episode."""
    feeder = make(tools, 16, streams=1)  # episodes end at 6 and 13
    feeder.replay.append(tools.make_records([50], [True], [False]))
    feeder.replay.drop_open_episode(0)
    assert tools.all_sequences(feeder.replay, 16) == [tuple(range(16))]
    feeder.replay.drop_open_episode(0)
    assert tools.all_sequences(feeder.replay, 14) == [tuple(range(14))]


def test_drop_of_everything_leaves_an_empty_stream(tools):
    feeder = make(tools, 5)
    feeder.replay.drop_open_episode(0)
    assert (len(feeder.replay), feeder.replay.num_starts(1)) == (5, 5)
    assert {*starts(feeder.replay.sample(20, 2, np.random.default_rng(0)))} <= {1000, 1001, 1002, 1003}


def test_mask_selects_streams(tools):
    feeder = make(tools, streams=3)
    feeder(4, mask=np.array([True, False, True]))
    feeder(1, mask=np.array([False, False, False]))
    assert tools.all_sequences(feeder.replay, 4) == [(0, 1, 2, 3), (2000, 2001, 2002, 2003)]


def test_nothing_to_sample_is_one_error(tools):
    feeder = make(tools, 9)
    with pytest.raises(UserError, match="no stream has 10 consecutive records .*the longest has 9"):
        feeder.replay.sample(1, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="positive"):
        feeder.replay.sample(1, 0, np.random.default_rng(0))


def test_wrong_records_are_refused_and_change_nothing(tools):
    replay = make(tools, 2).replay
    good = tools.make_records([5, 6], [False] * 2, [False] * 2)
    with pytest.raises(ValueError, match="'reward' must be .2,., got .3,."):
        replay.append({**good, "reward": np.zeros(3)})
    with pytest.raises(ValueError, match="'is_last' must be bool, got float64"):
        replay.append({**good, "is_last": np.zeros(2)})
    with pytest.raises(KeyError, match="reward"):
        replay.append({key: value for key, value in good.items() if key != "reward"})
    assert tools.all_sequences(replay, 2) == [(0, 1), (1000, 1001)]
    replay.append({**good, "reward": good["reward"].astype(np.float64), "lost": np.zeros(2, bool)})
    assert tools.all_sequences(replay, 3) == [(0, 1, 5), (1000, 1001, 6)]


def test_impossible_buffers_are_refused(tools):
    with pytest.raises(UserError, match=r"replay.capacity 30 .* at least 40"):
        make(tools, capacity=30, streams=4)
    with pytest.raises(ValueError, match="is_last"):
        Replay({"is_first": Spec((), bool)}, capacity=10, streams=1, page_length=1)
