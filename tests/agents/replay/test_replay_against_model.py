"""Any interleaving of operations on several members equals a naive list of records."""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agents.replay import MemoryMappedStorage, PageStore, Replay, collect_garbage

PAGE, CAPACITY, STREAMS = 4, 30, 3
LENGTHS = (1, 3, 4, 6, 11)


class NaiveReplay:
    """The specification: per stream a list of [number, is_first, is_last, served, age], nothing shared."""

    def __init__(self):
        self.streams = [[] for _ in range(STREAMS)]
        self.time = 0

    def append(self, numbers, is_first, is_last, mask):
        for stream in np.flatnonzero(mask):
            self.streams[stream].append([numbers[stream], is_first[stream], is_last[stream], False, self.time])
            self.time += 1
        while sum(map(len, self.streams)) > CAPACITY:
            oldest = min((s for s in self.streams if len(s) >= PAGE), key=lambda s: s[0][4])
            del oldest[:PAGE]

    def drop_open_episode(self, stream):
        records = self.streams[stream]
        while records and not records[-1][2]:
            if records.pop()[1]:
                break

    def sequences(self, length):
        return [
            tuple(int(record[0]) for record in stream[start : start + length])
            for stream in self.streams
            for start in range(len(stream) - length + 1)
        ]

    def take_fresh(self, length):
        """Return the next fresh block and mark it served, or None."""
        fresh = [[record for record in stream if not record[3]] for stream in self.streams]
        block = max(fresh, key=len)[:length]  # the first of several longest ones
        if len(block) < length:
            return None
        for record in block:
            record[3] = True
        return tuple(int(record[0]) for record in block)


class Members(RuleBasedStateMachine):
    """Some members on one page store, each beside its naive model; saves are kept beside a copy of it."""

    tools = None  # set by the test

    @initialize(mapped=st.booleans())
    def start(self, mapped):
        self.folder = Path(tempfile.mkdtemp())
        storage = MemoryMappedStorage(self.tools.specs, self.folder / "arena") if mapped else None
        self.store = PageStore(self.tools.specs, PAGE, storage)
        self.members = [(self.new_replay(), NaiveReplay())]
        self.saves = []
        self.number = 0

    def new_replay(self):
        return Replay(self.tools.specs, capacity=CAPACITY, streams=STREAMS, page_length=PAGE, store=self.store)

    def member(self, data):
        return self.members[data.draw(st.integers(0, len(self.members) - 1))]

    @rule(data=st.data(), steps=st.integers(1, 9), seed=st.integers(0, 2**16))
    def append(self, data, steps, seed):
        replay, naive = self.member(data)
        generator = np.random.default_rng(seed)
        everyone = seed % 2 == 0
        for _ in range(steps):
            mask = np.ones(STREAMS, bool) if everyone else generator.random(STREAMS) < 0.6
            closed = np.array([not stream or bool(stream[-1][2]) for stream in naive.streams])
            is_first = closed | (generator.random(STREAMS) < 0.03)  # now and then an episode breaks off
            is_last = generator.random(STREAMS) < (0.01 if seed % 3 else 0.2)  # long episodes, short ones
            numbers = self.number + np.arange(STREAMS)
            self.number += STREAMS
            records = self.tools.make_records(numbers, is_first, is_last)
            replay.append(records, None if everyone else mask)
            naive.append(numbers, is_first, is_last, mask)

    @rule(data=st.data(), stream=st.integers(0, STREAMS - 1))
    def drop(self, data, stream):
        replay, naive = self.member(data)
        replay.drop_open_episode(stream)
        naive.drop_open_episode(stream)

    @rule(data=st.data(), batch=st.integers(1, 5), length=st.sampled_from(LENGTHS), seed=st.integers(0, 99))
    def sample(self, data, batch, length, seed):
        replay, naive = self.member(data)
        valid = naive.sequences(length)
        if not valid:
            return
        sampled = replay.sample(batch, length, np.random.default_rng(seed))
        self.tools.check_entries(sampled)
        for sequence in map(tuple, sampled["context_id"].tolist()):
            fresh = naive.take_fresh(length)
            assert sequence == fresh if fresh else sequence in valid

    @precondition(lambda self: len(self.members) < 4)
    @rule(data=st.data())
    def fork(self, data):
        replay, naive = self.member(data)
        self.members.append((replay.fork(), copy.deepcopy(naive)))

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def forget(self, data):
        self.members.pop(data.draw(st.integers(0, len(self.members) - 1)))

    @rule(data=st.data())
    def save(self, data):
        replay, naive = self.member(data)
        manifest = json.loads(json.dumps(replay.save(self.folder / "pages")))
        self.saves.append((manifest, copy.deepcopy(naive)))

    @precondition(lambda self: self.saves)
    @rule(data=st.data(), share=st.booleans())
    def load(self, data, share):
        manifest, naive = data.draw(st.sampled_from(self.saves))
        replay = Replay.load(manifest, self.folder / "pages", store=self.store if share else None)
        where = data.draw(st.integers(0, len(self.members) - 1))
        self.members[where] = (replay, copy.deepcopy(naive))

    @precondition(lambda self: self.saves)
    @rule(data=st.data())
    def forget_save(self, data):
        self.saves.pop(data.draw(st.integers(0, len(self.saves) - 1)))
        folder = self.folder / "pages"
        collect_garbage(folder, [manifest for manifest, _ in self.saves])
        named = {name for manifest, _ in self.saves for stream in manifest["pages"] for name in stream}
        assert {path.name for path in folder.iterdir()} == named

    @invariant()
    def equal(self):
        for replay, naive in getattr(self, "members", []):
            assert len(replay) == sum(map(len, naive.streams)) <= CAPACITY
            for length in LENGTHS:
                valid = naive.sequences(length)
                assert replay.num_starts(length) == len(valid)
                if length in (1, 6):  # the others would only take time
                    assert self.tools.all_sequences(replay, length) == valid

    @invariant()
    def no_page_is_lost(self):
        if hasattr(self, "members"):
            used = [r._pages[0].table.all_slots().tolist() for r, _ in self.members if r.store is self.store]
            assert self.store.pages_in_use == len(set(sum(used, [])))

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


@pytest.mark.parametrize(("steps", "examples"), [(15, 60), (60, 20)])
def test_members_equal_the_model(tools, steps, examples):
    Members.tools = tools
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Members, settings=chosen)
