"""The targets that are built in keep the contract that strangers get; so does the simplest one that is right."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.kit.naive import Naive
from tests.support import CODECS, SECRET, codec
from vbackup.api import Options
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.target_contract import (
    DamageContract,
    DyingContract,
    ExchangeContract,
    OutageContract,
    TargetContract,
    context,
)
from vbackup.testing.target_contract.points import PointContract
from vbackup.testing.transports import MemoryTransport
from vbackup_image.points.layout import POINT
from vbackup_image.points.target import ImageTarget, ImageTargetOptions
from vbackup_local.transport import Local, LocalOptions

CHUNK = 64 << 10


def repository(store, directory, cls=Repository):
    codecs = [codec(name) for name in CODECS]
    return cls(RepositoryOptions(chunk_size=CHUNK), context(store, directory, codecs, SECRET))


def image(root, **options):
    root.mkdir(exist_ok=True)
    return ImageTarget(ImageTargetOptions(**options), context(Local(LocalOptions(path=root)), root.with_name("host")))


@pytest.fixture
def store():
    return MemoryTransport()


@pytest.fixture
def hosts(tmp_path):
    """Directories, a new one each time."""
    return map(tmp_path.joinpath, map(str, itertools.count()))


class TestRepository(TargetContract):
    """All of one host: what it knows of the store it keeps in its cache."""

    @pytest.fixture
    def target_factory(self, store, tmp_path):
        return lambda: repository(store, tmp_path)


class TestRepositoryOfManyHosts(TargetContract):
    """Each of another one."""

    @pytest.fixture
    def target_factory(self, store, hosts):
        return lambda: repository(store, next(hosts))


class TestRepositoriesExchange(ExchangeContract):
    @pytest.fixture
    def two_factories(self, tmp_path):
        return tuple(
            partial(repository, store, tmp_path / name)
            for name, store in {"source": MemoryTransport(), "destination": MemoryTransport()}.items()
        )


class TestRepositoryHurt(DamageContract, DyingContract):
    @pytest.fixture
    def target_factory(self, store, tmp_path):
        return lambda: repository(store, tmp_path)

    @pytest.fixture
    def target_on(self, hosts):
        return lambda store: repository(store, next(hosts))

    @pytest.fixture
    def harm_data(self, store):
        """The newest pack: in memory, objects are listed as they were put."""
        return lambda: flip(store, max((i for i in list(store.list("packs"))[1:]), key=lambda info: info.size).key)

    @pytest.fixture
    def harm_point(self, store):
        return lambda: flip(store, list(store.list("points"))[-1].key)


class TestRepositoryAway(OutageContract):
    every = 3

    @pytest.fixture
    def target_on(self, hosts):
        return lambda store: repository(store, next(hosts))


def flip(store, key):
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, data)


class TestImages(TargetContract):
    @pytest.fixture
    def target_factory(self, tmp_path):
        return lambda: image(tmp_path / "images")


class TestImagesInChains(PointContract):
    @pytest.fixture
    def target_factory(self, tmp_path):
        return lambda: image(tmp_path / "images", backing=True)


class TestImagesHurt(DamageContract):
    @pytest.fixture
    def target_factory(self, tmp_path):
        return lambda: image(tmp_path / "images")

    @pytest.fixture
    def harm_data(self, tmp_path):
        def harm():
            (path,) = (tmp_path / "images" / "web").glob("*/vda.qcow2")
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

        return harm

    @pytest.fixture
    def harm_point(self, tmp_path):
        def harm():
            (path,) = (tmp_path / "images" / "web").glob(f"*/{POINT}")
            path.write_bytes(path.read_bytes()[:-10])

        return harm


class TestNaive(DamageContract, DyingContract, OutageContract, TargetContract):
    """A target may know nothing of what points share, and give nothing back."""

    @pytest.fixture
    def target_factory(self, store, tmp_path):
        return lambda: Naive(Options(), context(store, tmp_path))

    @pytest.fixture
    def target_on(self, tmp_path):
        return lambda store: Naive(Options(), context(store, tmp_path))

    @pytest.fixture
    def harm_data(self, store):
        """The last disk is the last but one of the objects with data; then comes the file."""
        return lambda: flip(store, list(store.list("data"))[-2].key)

    @pytest.fixture
    def harm_point(self, store):
        return lambda: store.put(list(store.list("points"))[-1].key, b"{}")
