"""Tar shards: every sample once, whoever reads them; whatever is wrong with one is said."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.classification.shards import ImageShards
from falconet.datasets.images.cache import PictureCache
from falconet.datasets.images.reading import Reading
from falconet.datasets.loader import EpochSampler, build_loader, close_loader
from falconet.datasets.shards.write import pack
from falconet.engine.train import train
from falconet.tasks.build import load_config

CROP = [{'type': 'RandomResizedCrop', 'size': (16, 16)}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def packed(folders: Path, tmp_path: Path) -> Path:
    """The class folders of `folders` in several shards."""
    sets = {split: ImageFolder(str(folders), split) for split in ('train', 'test')}
    parts = {split: list(zip(each.paths, each.labels.tolist(), strict=True)) for split, each in sets.items()}
    assert pack(parts, sets['train'].classes, tmp_path / 'shards', size=20_000)['train'] > 2
    return tmp_path / 'shards'


def contents(data: ImageShards | ImageFolder) -> set[tuple[bytes, int]]:
    return {(data.read(index).image.tobytes(), int(data.labels[index])) for index in range(len(data))}


def test_shards_hold_the_pictures_and_labels_of_the_folders(packed: Path, folders: Path) -> None:
    shards, folder = ImageShards(str(packed), 'train-*.tar'), ImageFolder(str(folders), 'train')
    assert shards.classes == folder.classes
    assert len(shards) == 24
    assert contents(shards) == contents(folder)
    with tarfile.open(packed / 'train-00000.tar') as archive:
        first = archive.getnames()
    assert first[:2] == ['train_00000000.png', 'train_00000000.cls']


def test_batches_are_the_same_with_any_number_of_workers_and_processes(packed: Path) -> None:
    def batches(workers: int) -> list[bytes]:
        data = ImageShards(str(packed), 'train-*.tar', augment=CROP, training=True)
        loader = build_loader(data, batch_size=4, num_workers=workers, training=True, seed=1)
        found = [batch['images'].numpy().tobytes() for batch in loader]
        close_loader(loader)
        return found

    assert batches(0) == batches(2)
    seen = []
    for rank in range(40):  # more processes than shards, and than samples
        sampler = EpochSampler(24, training=False, seed=0)
        sampler.rank, sampler.world_size = rank, 40
        seen += [key.sample for key in sampler]
    assert sorted(seen) == list(range(24))


def test_a_training_on_shards_is_that_on_the_folder_but_for_the_order(packed: Path, write_config) -> None:
    config = write_config("""
        train_dataloader['dataset'].pop('split')
        train_dataloader['dataset'] |= dict(type='ImageShards', shards='train-*.tar')
        val_dataloader['dataset'].pop('split')
        val_dataloader['dataset'] |= dict(type='ImageShards', shards='test-*.tar')
        train_cfg = dict(max_epochs=1)
    """)
    report = train(load_config(config), root=str(packed), work_dir=str(packed / 'run'))
    assert report['images'] == 12
    assert read_checkpoint(packed / 'run/best.pth')['classes'] == ['blue', 'green', 'red']


def test_the_index_is_kept_until_a_shard_changes(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(ImageShards(str(packed), 'train-*.tar'))
    with monkeypatch.context() as patch:
        patch.setattr('falconet.datasets.shards.read._index', lambda path: pytest.fail('read again'))
        assert contents(ImageShards(str(packed), 'train-*.tar')) == before
    shard = packed / 'train-00000.tar'
    shard.write_bytes((packed / 'test-00000.tar').read_bytes())
    assert contents(ImageShards(str(packed), 'train-*.tar')) != before


@pytest.mark.parametrize('share', [0.1, 0.5, 0.8])
def test_a_shard_that_was_cut_off_is_named(packed: Path, share: float) -> None:
    shard = packed / 'train-00001.tar'
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r'train-00001\.tar is cut off or no tar file'):
        ImageShards(str(packed), 'train-*.tar')


def test_a_shard_cut_between_two_members_is_named(packed: Path) -> None:
    shard = packed / 'train-00001.tar'
    with tarfile.open(shard) as archive:
        start = archive.getmembers()[4].offset
    shard.write_bytes(shard.read_bytes()[:start])
    with pytest.raises(UserError, match='its end marker is missing'):
        ImageShards(str(packed), 'train-*.tar')


def test_a_shard_listed_twice_or_copied_is_refused(packed: Path) -> None:
    with pytest.raises(UserError, match='is listed twice'):
        ImageShards(str(packed), 'train-00000.tar,train-*.tar')
    (packed / 'train-9.tar').write_bytes((packed / 'train-00000.tar').read_bytes())
    with pytest.raises(UserError, match=r"'train_\d+' is in train-00000\.tar and in train-9\.tar"):
        ImageShards(str(packed), 'train-*.tar')


def write(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, 'w') as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_labels_in_json_and_folders_inside_a_shard_are_read(packed: Path) -> None:
    with tarfile.open(packed / 'test-00000.tar') as archive:
        picture = archive.extractfile('test_00000000.png').read()  # type: ignore[union-attr]
    members = {'a/x.0.json': b'{"label": 2}', 'a/x.0.png': picture, 'a/._x.png': b'', 'b/x.png': picture}
    write(packed / 'other.tar', {**members, 'b/x.cls': b'1\n', 'b/x.txt': b'a caption'})
    data = ImageShards(str(packed), 'other.tar')
    assert data.labels.tolist() == [2, 1]
    assert data.read(0).image.shape == (40, 40, 3)


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ({'a.png': b'x'}, 'a.png: beside it, a.cls'),
        ({'a.png': b'x', 'a.jpg': b'x', 'a.cls': b'0'}, 'has two pictures, a.png and a.jpg'),
        ({'a.png': b'x', 'a.cls': b'cat'}, "should hold a class number, found b'cat'"),
        ({'a.png': b'x', 'a.cls': b'7'}, 'hold class 7, the 3 names are those of 0 to 2'),
        ({'a.txt': b'x'}, 'holds no pictures'),
    ],
)
def test_what_is_no_sample_is_explained(packed: Path, members: dict[str, bytes], message: str) -> None:
    write(packed / 'odd.tar', members)
    with pytest.raises(UserError, match=message):
        ImageShards(str(packed), 'odd.tar')


def test_names_are_needed_in_the_models_order(packed: Path) -> None:
    with pytest.raises(UserError, match='their order does not'):
        ImageShards(str(packed), 'test-*.tar', classes=('red', 'green', 'blue'))
    (packed / 'classes.txt').unlink()
    with pytest.raises(UserError, match=r'has no classes\.txt'):
        ImageShards(str(packed), 'test-*.tar')
    assert ImageShards(str(packed), 'test-*.tar', class_names=['a', 'b', 'c']).classes == ('a', 'b', 'c')
    with pytest.raises(UserError, match=r'has no valid-\*\.tar; it holds test-00000\.tar'):
        ImageShards(str(packed), 'valid-*.tar')


def test_a_picture_is_skipped_when_its_shard_shrinks_later(packed: Path) -> None:
    data = ImageShards(str(packed), 'test-*.tar')
    for shard in packed.glob('test-*.tar'):
        shard.write_bytes(b'')
    assert 'has become shorter' in data[0].reason  # type: ignore[union-attr]
    assert np.all(data.labels < 3)


@pytest.mark.parametrize('kind', [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_is_refused_for_its_picture_would_be_missing(packed: Path, kind: bytes) -> None:
    """GNU tar stores the second of two files with one inode as a link, so pictures vanished in silence."""
    path = packed / 'linked.tar'
    path.write_bytes((packed / 'train-00000.tar').read_bytes())
    with tarfile.open(path, 'a') as archive:
        member = tarfile.TarInfo('z.png')
        member.type, member.linkname = kind, archive.getnames()[0]
        archive.addfile(member)
    with pytest.raises(UserError, match=r'linked\.tar: z\.png is a link'):
        ImageShards(str(packed), 'linked.tar')


def test_tars_joined_by_cat_are_refused_for_all_but_the_first_would_be_missing(packed: Path) -> None:
    both = (packed / 'train-00000.tar').read_bytes() + (packed / 'train-00001.tar').read_bytes()
    (packed / 'joined.tar').write_bytes(both)
    with pytest.raises(UserError, match='more follows behind its end'):
        ImageShards(str(packed), 'joined.tar')


@pytest.mark.parametrize(
    ('shards', 'message'),
    [
        (5, "shards must be a text as 'train-"),
        (['train-00000.tar'], 'shards must be a text'),
        ('train-{00000..00009}.tar', r'Write train-\*\.tar for a range in braces'),
        ('', 'names no file'),
    ],
)
def test_what_names_no_shards_is_explained(packed: Path, shards: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageShards(str(packed), shards)


def test_shards_elsewhere_may_be_named_by_their_whole_path(packed: Path, tmp_path: Path) -> None:
    assert len(ImageShards(str(packed), f'{packed}/train-*.tar')) == 24
    odd = packed.rename(packed.with_name('[set]'))
    (odd / '._train-00000.tar').write_bytes(b'of macOS')
    assert len(ImageShards(str(odd), '*.tar')) == 36


def test_a_shard_that_is_replaced_while_it_is_read_leaves_nothing_wrong_in_a_cache(
    packed: Path, tmp_path: Path
) -> None:
    """The file that is open is still the old one: its pictures must not be kept under the new one's name."""
    (packed / 'test-00000.tar').unlink(missing_ok=True)
    shard = packed / 'train-00000.tar'
    data = ImageShards(str(packed), shard.name)
    reading = Reading(cache=PictureCache(tmp_path / 'kept', 10**7))
    old = reading(data, 0).image  # opens it
    content = bytearray(shard.read_bytes())
    first, second = (int(data._reader.index.offset[each]) for each in (0, 1))
    size = min(int(data._reader.index.size[each]) for each in (0, 1))
    content[first : first + size] = content[second : second + size]  # other pixels at the same place
    other = tmp_path / 'other.tar'
    other.write_bytes(content)
    other.replace(shard)
    np.testing.assert_array_equal(reading(data, 0).image, old)
    fresh = ImageShards(str(packed), shard.name)
    assert reading.cache is not None
    assert reading.cache.get(fresh.identity(0), None) is None


def test_a_compressed_tar_under_a_plain_name_is_told_as_that(packed: Path) -> None:
    shard = packed / 'train-00000.tar'
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(UserError, match=r'train-00000\.tar is compressed by gzip'):
        ImageShards(str(packed), 'train-*.tar')


def test_an_index_that_cannot_be_kept_is_made_each_time(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').write_text('in place of the folder')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert len(ImageShards(str(packed), 'train-*.tar')) == 24
