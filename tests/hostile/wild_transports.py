"""Transports, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

import asyncio

from stranger_tame import Disk

from vbackup.api import NotFound, ObjectInfo, Unavailable


class RaisesInConstructor(Disk):
    """its constructor raised RuntimeError: no"""

    def __init__(self, options):
        raise RuntimeError("no")


class RaisesInPut(Disk):
    """raised RuntimeError: no"""

    def put(self, key, data, *, if_absent=False):
        raise RuntimeError("no")


class ClosesInPut(Disk):
    """raised GeneratorExit"""

    def put(self, key, data, *, if_absent=False):
        raise GeneratorExit


class ExitsInPut(Disk):
    """raised SystemExit: 0"""

    def put(self, key, data, *, if_absent=False):
        raise SystemExit(0)


class IsCancelledInPut(Disk):
    """raised CancelledError"""

    def put(self, key, data, *, if_absent=False):
        raise asyncio.CancelledError


class RaisesForPacks(Disk):
    """raised KeyError: 'packs/"""

    def put(self, key, data, *, if_absent=False):
        if key.startswith("packs"):
            raise KeyError(key)
        super().put(key, data, if_absent=if_absent)


class RaisesInGet(Disk):
    """get repository raised RuntimeError: no"""

    def get(self, key, offset=0, length=None):
        raise RuntimeError("no")


class RaisesForPoints(Disk):
    """raised EOFError"""

    def get(self, key, offset=0, length=None):
        if key.startswith("points"):
            raise EOFError
        return super().get(key, offset, length)


class RaisesInList(Disk):
    """raised RuntimeError: no"""

    def list(self, prefix=""):
        raise RuntimeError("no")


class RaisesInListLate(Disk):
    """raised RuntimeError: late"""

    def list(self, prefix=""):
        yield from super().list(prefix)
        raise RuntimeError("late")


class RaisesInFlag(Disk):
    """can_put_if_absent raised RuntimeError: no"""

    @property
    def can_put_if_absent(self):
        raise RuntimeError("no")


class RaisesAnErrorWithoutAText(Disk):
    """raised TypeError"""

    def list(self, prefix=""):
        raise NotFound


class RaisesAnErrorWithNoText(Disk):
    """raised NotFound (which cannot be shown)"""

    def list(self, prefix=""):
        raise NotFound(b"x")


class GetNothing(Disk):
    """get repository gave nothing (None), not bytes"""

    def get(self, key, offset=0, length=None):
        return None


class GetText(Disk):
    """gave a value of type str, not bytes"""

    def get(self, key, offset=0, length=None):
        return "text"


class GetWhatCanChange(Disk):
    """gave a value of type bytearray, not bytes"""

    def get(self, key, offset=0, length=None):
        return bytearray(super().get(key, offset, length))


class GetAllOfIt(Disk):
    """bytes where"""

    def get(self, key, offset=0, length=None):
        return super().get(key) * (2 << 20)


class GetShorter(Disk):
    """object repository"""

    def get(self, key, offset=0, length=None):
        return super().get(key, offset, length)[:-1]


class GetAnotherObject(Disk):
    """key"""

    def get(self, key, offset=0, length=None):
        if key.startswith("keys"):
            key = next(i.key for i in super().list("packs"))
        return super().get(key, offset, length)


class GetNothingAtAll(Disk):
    """repository"""

    def get(self, key, offset=0, length=None):
        return b""


class ListNothing(Disk):
    """raised TypeError"""

    def list(self, prefix=""):
        return None


class ListNames(Disk):
    """gave a value of type str, not an ObjectInfo"""

    def list(self, prefix=""):
        return [i.key for i in super().list(prefix)]


class ListPairs(Disk):
    """gave a value of type tuple, not an ObjectInfo"""

    def list(self, prefix=""):
        return [tuple(i) for i in super().list(prefix)]


class ListTextSizes(Disk):
    """a size of '"""

    def list(self, prefix=""):
        return [i._replace(size=str(i.size)) for i in super().list(prefix)]


class ListNegativeSizes(Disk):
    """a size of -1"""

    def list(self, prefix=""):
        return [i._replace(size=-1) for i in super().list(prefix)]


class ListTooMuch(Disk):
    """where all below 'keys' was asked for"""

    def list(self, prefix=""):
        return super().list()


class ListTwice(Disk):
    """twice"""

    def list(self, prefix=""):
        return [*super().list(prefix), *super().list(prefix)]


class ListForEver(Disk):
    """list gave"""

    def list(self, prefix=""):
        while True:
            yield ObjectInfo((prefix or "x") + "/a", 1)


class Flag(Disk):
    """can_put_if_absent is a value of type str, not True or False"""

    can_put_if_absent = "yes"


class MutatesWhatItIsGiven(Disk):
    """raised TypeError"""

    def put(self, key, data, *, if_absent=False):
        data[0] = 0
        super().put(key, data, if_absent=if_absent)


class WaitsForWords(Disk):
    """raised Unavailable: come back later, whose retry_after is 'soon', no number of seconds"""

    def put(self, key, data, *, if_absent=False):
        raise Unavailable("come back later", retry_after="soon")


class WaitsForNoNumber(Disk):
    """raised Unavailable: come back later, whose retry_after is nan, no number of seconds"""

    def put(self, key, data, *, if_absent=False):
        raise Unavailable("come back later", retry_after=float("nan"))
