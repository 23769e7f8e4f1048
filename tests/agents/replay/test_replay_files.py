"""Saving and loading: exact, shared between manifests, and unharmed by whatever stops it."""

import errno
import gc
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.errors import Damaged, UserError
from agents.replay import PageStore, Replay, Spec, collect_garbage


@pytest.fixture
def feeder(tools):
    """Two streams, 35 records each in pages of 10, capacity 100."""
    feeder = tools.Feeder(Replay(tools.specs, capacity=100, streams=2, page_length=10))
    feeder(35)
    return feeder


def page_files(folder):
    return {path.name: path for path in folder.iterdir()}


def next_samples(replay):
    """Return 12 samples in a row, the first of which serve what is fresh."""
    return [replay.sample(3, 8, np.random.default_rng(number)) for number in range(12)]


def assert_same_samples(left, right):
    for one, other in zip(next_samples(left), next_samples(right), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            assert torch.equal(one[key], other[key]), key


def test_loaded_replay_continues_exactly(tools, feeder, tmp_path):
    feeder(30, mask=[True, False])  # with evictions and streams of different lengths
    feeder.replay.sample(2, 8, np.random.default_rng(0))  # two fresh blocks are served, others are not
    manifest = json.loads(json.dumps(feeder.replay.save(tmp_path)))
    loaded = Replay.load(manifest, tmp_path)
    assert (len(loaded), loaded.capacity, loaded.streams) == (len(feeder.replay), 100, 2)
    assert_same_samples(feeder.replay.fork(), loaded.fork())

    copy = tools.Feeder(loaded)
    copy.count = feeder.count.copy()
    for feed in (feeder, copy):
        feed(27)
        feed.replay.drop_open_episode(1)
        feed(11)
    assert tools.all_sequences(loaded, 4) == tools.all_sequences(feeder.replay, 4)
    assert_same_samples(feeder.replay, loaded)


def test_empty_replay_is_saved_too(tools, tmp_path):
    replay = Replay(tools.specs, capacity=100, streams=2, page_length=10)
    feeder = tools.Feeder(Replay.load(replay.save(tmp_path), tmp_path))
    feeder(3)
    assert feeder.replay.num_starts(3) == 2


def test_full_page_is_written_once_and_shared_between_manifests(tools, feeder, tmp_path):
    first = feeder.replay.save(tmp_path)
    before = {name: path.stat().st_mtime_ns for name, path in page_files(tmp_path).items()}
    assert len(before) == 8  # each stream: three full pages and an open one
    fork = tools.Feeder(feeder.replay.fork())
    fork.count = feeder.count + 100
    fork(2)
    second = fork.replay.save(tmp_path)
    after = page_files(tmp_path)
    assert len(after) == 10  # the open pages alone are new
    assert all(after[name].stat().st_mtime_ns == changed for name, changed in before.items())
    for stream in range(2):
        assert first["pages"][stream][:3] == second["pages"][stream][:3]
    assert feeder.replay.save(tmp_path) == first  # nothing happened to it since
    assert len(page_files(tmp_path)) == 10


def test_members_loaded_into_one_store_share_pages(tools, feeder, tmp_path):
    manifests = [feeder.replay.save(tmp_path)]
    feeder(1)
    manifests.append(feeder.replay.save(tmp_path))
    store = PageStore(tools.specs, 10)
    members = [Replay.load(manifest, tmp_path, store=store) for manifest in manifests]
    assert store.pages_in_use == 6 + 2 * 2
    feed = tools.Feeder(members[0])
    feed.count[:] = 500
    feed(30)
    assert tools.all_sequences(members[1], 5) == tools.all_sequences(feeder.replay, 5)
    members.clear()
    del feed
    assert store.pages_in_use == 0


def test_streams_with_equal_pages_part_ways(tools, tmp_path):
    """Two streams that recorded the same have one file, hence one page after a load, until they differ."""
    saved = Replay(tools.specs, capacity=100, streams=2, page_length=10)
    for number in range(10):
        saved.append(tools.make_records([number, number], [number == 4] * 2, [number == 3] * 2))
    manifest = saved.save(tmp_path)
    assert len(page_files(tmp_path)) == 1
    loaded = Replay.load(manifest, tmp_path)
    store = loaded.store
    assert store.pages_in_use == 1
    fork = loaded.fork()
    for stream in range(2):
        loaded.drop_open_episode(stream)
    loaded.append(tools.make_records([70, 80], [True, True], [False, False]))
    assert tools.all_sequences(loaded, 5) == [(0, 1, 2, 3, 70), (0, 1, 2, 3, 80)]
    assert tools.all_sequences(fork, 10) == [tuple(range(10))] * 2
    assert store.pages_in_use == 3
    del fork
    assert store.pages_in_use == 2
    loaded = Replay.load(manifest, tmp_path, store=store)
    for stream in range(2):
        loaded.drop_open_episode(stream)
    loaded.append(tools.make_records([71, 81], [True, True], [False, False]))
    assert tools.all_sequences(loaded, 5) == [(0, 1, 2, 3, 71), (0, 1, 2, 3, 81)]
    assert store.pages_in_use == 2
    del loaded
    assert store.pages_in_use == 0


def test_page_that_is_written_again_gets_a_new_file(tools, feeder, tmp_path):
    """Dropping an episode reopens a full, already saved page."""
    feeder.replay.drop_open_episode(0)
    feeder(1)  # stream 0 stands at 36
    old = feeder.replay.save(tmp_path)
    old_sequences = tools.all_sequences(feeder.replay, 5)
    number = feeder.count.copy()
    for step in range(6):  # an open episode from 36 to beyond the border at 40
        feeder.replay.append(tools.make_records(number + 300 + step, [step == 0] * 2, [False] * 2))
    feeder.replay.save(tmp_path)
    feeder.replay.drop_open_episode(0)
    shortened = Replay.load(feeder.replay.save(tmp_path), tmp_path)
    assert tools.all_sequences(shortened, 5) == tools.all_sequences(feeder.replay, 5)
    for step in range(6):
        feeder.replay.append(tools.make_records(number + 600 + step, [step == 0] * 2, [False] * 2))
    new = feeder.replay.save(tmp_path)
    for store in (feeder.replay.store, None):
        loaded = Replay.load(new, tmp_path, store=store)
        assert tools.all_sequences(loaded, 5) == tools.all_sequences(feeder.replay, 5)
        assert tools.all_sequences(Replay.load(old, tmp_path, store=store), 5) == old_sequences


def test_garbage_collection_leaves_exactly_the_named_pages(feeder, tmp_path):
    first = feeder.replay.save(tmp_path)
    feeder(40)
    second = feeder.replay.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    torn = tmp_path / f".{'0' * 32}.safetensors.99.tmp"
    torn.write_bytes(b"half a page")
    assert collect_garbage(tmp_path, [first, second]) == [torn]

    named = {name for stream in second["pages"] for name in stream}
    doomed = {name for stream in first["pages"] for name in stream} - named
    assert doomed
    assert collect_garbage(tmp_path, [second]) == sorted(tmp_path / name for name in doomed)
    assert set(page_files(tmp_path)) == named | {"notes.txt"}
    assert len(Replay.load(second, tmp_path)) == len(feeder.replay)
    assert collect_garbage(tmp_path / "nowhere", []) == []


def test_full_disk_loses_nothing(tools, feeder, tmp_path, monkeypatch):
    before = feeder.replay.save(tmp_path)
    saved_sequences = tools.all_sequences(feeder.replay, 5)
    feeder(20)
    sequences = tools.all_sequences(feeder.replay, 5)
    files = set(page_files(tmp_path))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="the disk is full") as raised:
            feeder.replay.save(tmp_path)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    assert set(page_files(tmp_path)) == files  # no torn file either
    assert tools.all_sequences(Replay.load(before, tmp_path), 5) == saved_sequences
    assert tools.all_sequences(feeder.replay, 5) == sequences
    after = feeder.replay.save(tmp_path)  # room again
    assert tools.all_sequences(Replay.load(after, tmp_path), 5) == sequences


def test_every_page_is_synced_and_then_their_folder_once(feeder, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "page")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    feeder.replay.save(tmp_path)
    assert synced == ["page"] * 8 + ["folder"]


def test_folder_that_cannot_be_made_is_one_error(feeder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/pages"):
        feeder.replay.save(tmp_path / "file" / "pages")


KILLED = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from agents.replay import Replay
folder = Path(sys.argv[1])
replay = Replay.load(json.loads((folder / "manifest.json").read_text()), folder / "pages")
for number in range(90):
    specs = replay.specs.items()
    replay.append({key: np.full((2, *spec.shape), number % 50, spec.dtype) for key, spec in specs})
renamed = 0
def replace(source, target):
    global renamed
    renamed += 1
    if renamed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    os.rename(source, target)
os.replace = replace
replay.save(folder / "pages")
"""


def test_kill_during_save_leaves_the_previous_manifest(tools, feeder, tmp_path):
    manifest = feeder.replay.save(tmp_path / "pages")
    before = set(page_files(tmp_path / "pages"))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = set(page_files(tmp_path / "pages")) - before
    assert len(left) == 3 and sum(name.endswith(".tmp") for name in left) == 1
    loaded = Replay.load(manifest, tmp_path / "pages")
    assert tools.all_sequences(loaded, 5) == tools.all_sequences(feeder.replay, 5)
    assert {path.name for path in collect_garbage(tmp_path / "pages", [manifest])} == left


@pytest.mark.parametrize("number", [0, 3])  # a full page, the open one
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty"])
def test_damaged_page_is_one_error_that_names_it(feeder, tmp_path, damage, number):
    manifest = feeder.replay.save(tmp_path)
    path = tmp_path / manifest["pages"][1][number]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"cut": content[:-7], "flipped": flipped, "empty": b""}[damage])
    store = PageStore(feeder.replay.specs, 10)
    with pytest.raises(Damaged) as raised:
        Replay.load(manifest, tmp_path, store=store)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    del raised  # its traceback holds the half-loaded replay
    gc.collect()
    assert store.pages_in_use == 0


def test_page_that_cannot_be_read_now_is_not_called_damaged(feeder, tmp_path, monkeypatch):
    manifest = feeder.replay.save(tmp_path)

    def read_bytes(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(UserError, match="cannot be read .Permission denied") as raised:
        Replay.load(manifest, tmp_path)
    assert not isinstance(raised.value, Damaged) and "\n" not in str(raised.value)


def test_another_format_is_not_called_damaged(feeder, tmp_path):
    manifest = feeder.replay.save(tmp_path) | {"format": 99}
    with pytest.raises(UserError, match="manifest of format 99; this version reads 1") as raised:
        Replay.load(manifest, tmp_path)
    assert not isinstance(raised.value, Damaged)


def changed(key, value):
    def change(manifest):
        manifest[key] = value(manifest[key])

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.clear(),
        lambda manifest: manifest.update(pages=[], serials=[], length=[], unserved=[]),
        changed("length", lambda old: [old[0], 5]),
        changed("length", lambda old: [old[0], old[1] - 1]),
        changed("pages", lambda old: [[*old[0][:-1], "../../etc/passwd"], old[1]]),
        changed("pages", lambda old: [old[0][::-1], old[1]]),
        changed("pages", lambda _: None),
        changed("specs", lambda old: {**old, "reward": [[], "float64"]}),
        changed("specs", lambda old: {**old, "reward": [[], "no type"]}),
        changed("unserved", lambda _: ["x", 0]),
    ],
)
def test_damaged_manifest_is_one_error(feeder, tmp_path, change):
    manifest = feeder.replay.save(tmp_path)
    change(manifest)
    with pytest.raises(Damaged, match="manifest") as raised:
        Replay.load(manifest, tmp_path)
    assert "\n" not in str(raised.value)


def test_store_for_other_records_is_refused(tools, feeder, tmp_path):
    manifest = feeder.replay.save(tmp_path)
    other = PageStore({**tools.specs, "reward": Spec((2,), "float32")}, 10)
    with pytest.raises(ValueError, match="other records"):
        Replay.load(manifest, tmp_path, store=other)


LATENT = {"latent": Spec((2,), "int16")}


@pytest.fixture
def with_latents(tools):
    """One stream of 25 records in pages of 10, each with its number as latent."""
    latents = PageStore(LATENT, 10)
    replay = Replay(tools.specs, capacity=100, streams=1, page_length=10, latents=latents)
    for number in range(25):
        records = tools.make_records([number], [number == 0], [False])
        replay.append(records | {"latent": np.full((1, 2), number, np.int16)})
    return replay


def kept_latents(replay):
    return replay._pages[1].gather(np.array([0]), np.arange(len(replay))[None], "cpu")["latent"][0, :, 0].tolist()


def test_new_latents_touch_neither_pages_of_records_nor_forks(with_latents, tmp_path):
    first = with_latents.save(tmp_path)
    before = set(page_files(tmp_path))
    fork = with_latents.fork()
    places = with_latents.draw(1, 12, np.random.default_rng(0), before=1)  # records 0 to 12: two pages of latents
    with_latents.write_back(places, {"latent": torch.full((1, 12, 2), 77, dtype=torch.int16)})
    second = with_latents.save(tmp_path)
    assert second["pages"] == first["pages"]
    assert [
        one == two for one, two in zip(first["latents"]["pages"][0], second["latents"]["pages"][0], strict=True)
    ] == [
        False,
        False,
        True,
    ]
    assert len(set(page_files(tmp_path)) - before) == 2
    changed_latents = [0, *[77] * 12, *range(13, 25)]
    for manifest, wanted in ((first, list(range(25))), (second, changed_latents)):
        assert kept_latents(Replay.load(manifest, tmp_path)) == wanted
    assert (kept_latents(fork), kept_latents(with_latents)) == (list(range(25)), changed_latents)
    assert with_latents._pages[1].store.pages_in_use == 3 + 2  # of which the fork holds two alone
    assert with_latents.store.pages_in_use == 3


def test_overlapping_sequences_leave_the_later_one(with_latents):
    places = with_latents.draw(2, 12, np.random.default_rng(0), before=1)
    places = places._replace(starts=np.array([3, 8]))
    new = torch.stack([torch.full((12, 2), 100 + row, dtype=torch.int16) for row in range(2)])
    with_latents.write_back(places, {"latent": new})
    assert kept_latents(with_latents) == [0, 1, 2, 3, *[100] * 5, *[101] * 12, *range(21, 25)]


def test_manifests_tell_whether_there_are_latents(tools, feeder, with_latents, tmp_path):
    assert feeder.replay.save(tmp_path)["format"] == 1  # as before there were any
    manifest = with_latents.save(tmp_path)
    assert manifest["format"] == 2
    for damage in ({"latents": None}, {"latents": {**manifest["latents"], "pages": [[]]}}):
        with pytest.raises(Damaged, match="damaged replay manifest"):
            Replay.load(manifest | damage, tmp_path)
    with pytest.raises(ValueError, match="other latents"):
        Replay.load(manifest, tmp_path, latents=PageStore({"latent": Spec((3,), "int16")}, 10))
    with pytest.raises(ValueError, match="other latents"):
        Replay.load(feeder.replay.save(tmp_path), tmp_path, latents=PageStore(LATENT, 10))
    with pytest.raises(ValueError, match="keeps no latents"):
        feeder.replay.read_latents(feeder.replay.draw(1, 3, np.random.default_rng(0)))
