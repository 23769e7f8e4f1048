"""Any interleaving of operations on several members equals a naive list of records."""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
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

from agents.replay import MemoryMappedStorage, PageStore, Replay, Spec, collect_garbage

PAGE, CAPACITY, STREAMS = 4, 30, 3
LATENTS = {"latent/deter": Spec((2,), "int16"), "latent/stoch": Spec((1,), "uint8")}
LENGTHS = (1, 3, 4, 6, 11)


def latents_of(numbers):
    """Return latents [..., size] that are functions of ``numbers`` [...]."""
    numbers = np.asarray(numbers)
    deter = np.stack([numbers, -numbers], -1).astype(np.int16)
    return {"latent/deter": deter, "latent/stoch": (numbers[..., None] % 251).astype(np.uint8)}


class NaiveReplay:
    """The specification: per stream a list of [number, is_first, is_last, served, age, latent], nothing shared."""

    def __init__(self):
        self.streams = [[] for _ in range(STREAMS)]
        self.time = 0

    def append(self, numbers, is_first, is_last, mask):
        for stream in np.flatnonzero(mask):
            record = [numbers[stream], is_first[stream], is_last[stream], False, self.time, int(numbers[stream])]
            self.streams[stream].append(record)
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

    def take_fresh(self, length, before=0):
        """Return the next fresh block behind its ``before`` records and mark it served, or None."""
        fresh = [[record for record in stream[before:] if not record[3]] for stream in self.streams]
        block = max(fresh, key=len)[:length]  # the first of several longest ones
        if len(block) < length:
            return None
        stream = self.streams[max(range(STREAMS), key=lambda stream: len(fresh[stream]))]
        start = next(place for place, record in enumerate(stream) if record is block[0])
        for record in stream[: start + length]:  # what lies in front of it has been passed over for good
            record[3] = True
        return tuple(int(record[0]) for record in stream[start - before : start + length])

    def write_back(self, numbers, latents):
        """Replace the latents of the records that are still there, in the order given."""
        records = {int(record[0]): record for stream in self.streams for record in stream}
        for number, latent in zip(numbers, latents, strict=True):
            if number in records:
                records[number][5] = latent


class Members(RuleBasedStateMachine):
    """Some members on one page store, each beside its naive model; saves are kept beside a copy of it."""

    tools = None  # set by the test

    @initialize(mapped=st.booleans(), kept=st.booleans())
    def start(self, mapped, kept):
        self.folder = Path(tempfile.mkdtemp())
        self.latents = PageStore(LATENTS, PAGE) if kept else None
        storage = MemoryMappedStorage(self.tools.specs, self.folder / "arena") if mapped else None
        self.store = PageStore(self.tools.specs, PAGE, storage)
        self.members = [(self.new_replay(), NaiveReplay())]
        self.saves = []
        self.number = 0

    def new_replay(self):
        stores = {"store": self.store, "latents": self.latents}
        return Replay(self.tools.specs, capacity=CAPACITY, streams=STREAMS, page_length=PAGE, **stores)

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
            replay.append(records | latents_of(numbers), None if everyone else mask)
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

    @precondition(lambda self: self.latents is not None)
    @rule(
        data=st.data(),
        batch=st.integers(1, 5),
        length=st.sampled_from((1, 3, 6)),
        before=st.sampled_from((1, 2)),
        seed=st.integers(0, 99),
        between=st.sampled_from(("nothing", "append", "drop", "fork")),
    )
    def write_back(self, data, batch, length, before, seed, between):
        replay, naive = self.member(data)
        valid = naive.sequences(before + length)
        if not valid:
            return
        places = replay.draw(batch, length, np.random.default_rng(seed), before=before)
        sampled, latents = replay.read(places), replay.read_latents(places)
        self.tools.check_entries(sampled)
        numbers = sampled["context_id"].tolist()
        present = {int(record[0]): record[5] for stream in naive.streams for record in stream}
        first = latents_of([present[sequence[0]] for sequence in numbers])
        assert all(np.array_equal(latents[key].numpy(), value) for key, value in first.items())
        for sequence in map(tuple, numbers):
            fresh = naive.take_fresh(length, before)
            assert sequence == fresh if fresh else sequence in valid
        dropped = set()
        if between == "append":  # enough to evict some of it
            self._feed(replay, naive, 7)
        elif between == "drop":
            before_drop = len(naive.streams[0])
            streams = [sequence[0] in {int(record[0]) for record in naive.streams[0]} for sequence in numbers]
            replay.drop_open_episode(0)
            naive.drop_open_episode(0)
            if len(naive.streams[0]) < before_drop:
                dropped = {number for number, gone in enumerate(streams) if gone}
            self._feed(replay, naive, 2)
        elif between == "fork" and len(self.members) < 4:
            self.members.append((replay.fork(), copy.deepcopy(naive)))
        self.number += 1000
        new = self.number % 30000 + np.arange(batch * length).reshape(batch, length)
        replay.write_back(places, {key: torch.from_numpy(value) for key, value in latents_of(new).items()})
        for position in sorted(set(range(batch)) - dropped):
            naive.write_back(numbers[position][before:], new[position].tolist())

    def _feed(self, replay, naive, steps):
        """Append to all streams, each record the only one of its episode."""
        for _ in range(steps):
            numbers = self.number + np.arange(STREAMS)
            self.number += STREAMS
            everyone = np.ones(STREAMS, bool)
            replay.append(self.tools.make_records(numbers, everyone, everyone) | latents_of(numbers))
            naive.append(numbers, everyone, everyone, everyone)

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
        stores = {"store": self.store, "latents": self.latents} if share else {}
        replay = Replay.load(manifest, self.folder / "pages", **stores)
        where = data.draw(st.integers(0, len(self.members) - 1))
        self.members[where] = (replay, copy.deepcopy(naive))

    @precondition(lambda self: self.saves)
    @rule(data=st.data())
    def forget_save(self, data):
        self.saves.pop(data.draw(st.integers(0, len(self.saves) - 1)))
        folder = self.folder / "pages"
        collect_garbage(folder, [manifest for manifest, _ in self.saves])
        tables = [table for manifest, _ in self.saves for table in (manifest, manifest.get("latents")) if table]
        named = {name for table in tables for stream in table["pages"] for name in stream}
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
    def latents_are_equal(self):
        for replay, naive in getattr(self, "members", []):
            assert replay.keeps_latents == (self.latents is not None)
            for stream, records in enumerate(naive.streams):
                if replay.keeps_latents and records:
                    streams, positions = np.array([stream]), np.arange(len(records))[None]
                    kept = replay._pages[1].gather(streams, positions, "cpu")
                    for key, value in latents_of([[record[5] for record in records]]).items():
                        np.testing.assert_array_equal(kept[key].numpy(), value)

    @invariant()
    def no_page_is_lost(self):
        for number, store in enumerate((getattr(self, "store", None), getattr(self, "latents", None))):
            if store is not None:
                pages = [replay._pages[number] for replay, _ in self.members]
                used = [kind.table.all_slots().tolist() for kind in pages if kind.store is store]
                assert store.pages_in_use == len(set(sum(used, [])))

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
