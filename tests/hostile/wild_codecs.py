"""Codecs, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

from stranger_tame import Zlib


class Constructor(Zlib):
    """its constructor raised RuntimeError: no"""

    def __init__(self, options):
        raise RuntimeError("no")


class EncodeRaises(Zlib):
    """encode raised RuntimeError: no"""

    def encode(self, data, context):
        raise RuntimeError("no")


class EncodeExits(Zlib):
    """encode raised SystemExit: 0"""

    def encode(self, data, context):
        raise SystemExit(0)


class EncodeInterrupts(Zlib):
    """encode raised KeyboardInterrupt"""

    def encode(self, data, context):
        raise KeyboardInterrupt


class EncodeNothing(Zlib):
    """encode gave nothing (None), not bytes"""

    def encode(self, data, context):
        return None


class EncodeText(Zlib):
    """encode gave a value of type str, not bytes"""

    def encode(self, data, context):
        return "x"


class EncodeWhatCanChange(Zlib):
    """encode gave a value of type bytearray, not bytes"""

    def encode(self, data, context):
        return bytearray(super().encode(data, context))


class CannotUndoIt(Zlib):
    """it cannot decode what it encoded just now: Corrupt: not what zlib made"""

    def encode(self, data, context):
        return super().encode(data, context)[:-1]


class UndoesItToSomethingElse(Zlib):
    """it decodes what it encoded just now to other bytes"""

    def encode(self, data, context):
        return super().encode(bytes(data).swapcase(), context)


class LosesAll(Zlib):
    """it cannot decode what it encoded just now"""

    def encode(self, data, context):
        return b""


class MutatesWhatItIsGiven(Zlib):
    """encode raised TypeError"""

    def encode(self, data, context):
        data[0] = 0
        return super().encode(data, context)


class DecodeRaises(Zlib):
    """decode raised RuntimeError: no"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            raise RuntimeError("no")
        return super().decode(data, context, max_size)


class DecodeExits(Zlib):
    """decode raised SystemExit: 0"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            raise SystemExit(0)
        return super().decode(data, context, max_size)


class DecodeNothing(Zlib):
    """decode gave nothing (None), not bytes"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            return None
        return super().decode(data, context, max_size)


class DecodeText(Zlib):
    """decode gave a value of type str, not bytes"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            return "x" * max_size
        return super().decode(data, context, max_size)


class DecodeMoreThanIsAllowed(Zlib):
    """where at most"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            return bytes(max_size + 1)
        return super().decode(data, context, max_size)


class DecodeOtherBytes(Zlib):
    """the stored chunk decodes to other bytes"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            return bytes(min(max_size, 65536))
        return super().decode(data, context, max_size)


class DecodeTooLittle(Zlib):
    """the stored chunk decodes to other bytes"""

    broken = False

    def decode(self, data, context, max_size):
        if self.broken:
            return b""
        return super().decode(data, context, max_size)
