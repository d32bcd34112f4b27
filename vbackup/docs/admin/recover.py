#!/usr/bin/env python3
"""Gets disks out of a vbackup repository without vbackup.

    recover.py REPOSITORY KEY                     list the restore points
    recover.py REPOSITORY KEY POINT               show what that machine was like
    recover.py REPOSITORY KEY POINT DISK FILE     write a disk of it to the new FILE, byte by byte

REPOSITORY is a directory with all objects of the repository. KEY is a file: the key file, the private key of a
recipient, or one line with the passphrase. POINT is the beginning of an id. DISK is a disk's key as the list has it, or
the name of one of the machine's files (such as nvram).

It needs Python 3.11 and `pip install cryptography blake3 zstandard` (and lz4 for repositories with that codec). It
follows vbackup/repository/FORMAT.md and nothing else, and only ever reads the repository. What is damaged is named, and
left as zeros in FILE; then it ends with exit code 1.
"""

import base64
import bz2
import json
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DATA, NODE, FILE = 1, 2, 3
ZEROS = bytes(32)
ENTRY = struct.Struct("<32sBHII4x")
DAMAGE = (ValueError, KeyError, IndexError, OSError, struct.error, zlib.error, zstandard.ZstdError, InvalidTag)


def inflate(data: bytes) -> bytes:
    return zlib.decompress(data, wbits=-15)


def unlz4(data: bytes) -> bytes:
    import lz4.block

    return bytes(lz4.block.decompress(data[4:], uncompressed_size=int.from_bytes(data[:4], "little")))


unzstd = zstandard.ZstdDecompressor().decompress
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes, "zstd": unzstd, "lz4": unlz4, "deflate": inflate, "bzip2": bz2.decompress,
}  # fmt: skip
Cipher = AESGCM | ChaCha20Poly1305
CIPHERS: dict[str, type[Cipher]] = {"aes-256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Chunk(NamedTuple):
    """A chunk in a pack."""

    pack: Path
    origin: bytes
    id: bytes
    kind: int
    offset: int
    length: int


def derive(secret: bytes, purpose: str, salt: bytes = b"", size: int = 32) -> bytes:
    return HKDF(SHA256(), size, salt, b"vbackup 1 " + purpose.encode()).derive(secret)


def open_sealed_to(seed: bytes, sealed: bytes, info: bytes) -> bytes:
    pair = derive(seed, "key pair", size=96)
    lattice, curve = MLKEM768PrivateKey.from_seed_bytes(pair[:64]), X25519PrivateKey.from_private_bytes(pair[64:])
    return HPKE.decrypt(sealed, MLKEM768X25519PrivateKey(lattice, curve), info)


def behind_length(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """Return what stands behind its length, an integer of ``size`` bytes, and where it ends."""
    end = at + size + int.from_bytes(data[at : at + size], "little")
    return data[at + size : end], end


def complain(text: str) -> None:
    print(f"recover.py: {text}", file=sys.stderr)


class Repository:
    def __init__(self, root: Path, secret: bytes) -> None:
        about = json.loads((root / "repository").read_bytes())
        if about["format"] != 1:
            sys.exit(f"recover.py: this reads format 1, and the repository has format {about['format']}")
        self.root, self.id, self.chunk_size = root, bytes.fromhex(about["id"]), about["chunk_size"]
        ring = self.unlock(secret)
        self.write, self.seeds = bytes.fromhex(ring["write"]), ring["seeds"]
        self.family = derive(self.write, "family")[:16]
        self.seals = AESGCM(derive(self.write, "seal"))
        purposes = {DATA: "chunk id data", NODE: "chunk id node", FILE: "chunk id file"}
        self.id_keys = {kind: derive(self.write, purpose) for kind, purpose in purposes.items()}
        self.secrets: dict[bytes, bytes] = {}
        fields = [about[name] for name in ("format", "id", "chunk_size", "created")] + [int(about["conditional_put"])]
        signed = blake3("|".join(map(str, fields)).encode(), key=derive(self.write, "repository object"))
        if signed.hexdigest() != about["mac"]:
            complain("the object `repository` is not what was stored: its chunk size may be wrong")

    def unlock(self, secret: bytes) -> dict[str, Any]:
        """Return the newest ring that the secret opens."""
        rings = []
        for path in sorted((self.root / "keys").iterdir()):
            try:
                rings.append(json.loads(self.open_slot(json.loads(path.read_bytes()), secret)))
            except DAMAGE:
                continue  # of another key
        newest: dict[str, Any] = max(rings, key=lambda ring: (bool(ring["seeds"]), ring["generation"]), default={})
        if not newest:
            sys.exit("recover.py: this key opens none of the repository's key slots")
        if not newest["seeds"]:
            sys.exit("recover.py: this key can only write: use one that may read")
        return newest

    def open_slot(self, slot: dict[str, Any], secret: bytes) -> bytes:
        wrapped, associated = bytes.fromhex(slot["wrapped"]), b"vbackup 1 slot" + self.id
        if slot["type"] == "recipient":
            return open_sealed_to(base64.b64decode(secret.removeprefix(b"VBACKUP-PRIVATE-1:")), wrapped, associated)
        cost, salt = slot["argon2id"], bytes.fromhex(slot["salt"])
        stretch = Argon2id(
            salt=salt, length=32, iterations=cost["iterations"], lanes=cost["lanes"], memory_cost=cost["memory_kib"]
        )
        return AESGCM(stretch.derive(secret)).decrypt(bytes.fromhex(slot["nonce"]), wrapped, associated)

    def unseal(self, kind: str, name: bytes, data: bytes) -> bytes:
        return self.seals.decrypt(data[:12], data[12:], b"\0".join((b"vbackup 1", kind.encode(), self.id, name)))

    def session_secret(self, origin: bytes) -> bytes:
        if origin not in self.secrets:
            seed = bytes.fromhex(self.seeds[str(int.from_bytes(origin[16:20], "little"))])
            info = b"vbackup 1 session" + self.family + origin[:16]
            self.secrets[origin] = open_sealed_to(seed, origin[20:1188], info)
        return self.secrets[origin]

    def points(self) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
        """Yield what each point that counts says, its origin, and its body."""
        for path in sorted((self.root / "points").iterdir()):
            try:
                data = path.read_bytes()
                origin, at = behind_length(data, 8, 2)
                head, at = behind_length(data, at, 4)
                opened = json.loads(self.unseal("point", bytes.fromhex(path.name) + origin, head))
                if self.counts(path.name, origin[:16].hex()):
                    yield opened["point"], origin, data[at:]
            except DAMAGE as error:
                complain(f"restore point {path.name} is damaged: {error!r}")

    def counts(self, point: str, session: str) -> bool:
        """Whether a point counts: if its session was ended from outside, each record of that must name it."""
        records = [path for path in (self.root / "ended" / session).glob("*") if path.name != "0"]
        said = [self.unseal("document", f"ended/{session}/{path.name}".encode(), path.read_bytes()) for path in records]
        return all(point in json.loads(document)["points"] for document in said)

    def machine(self, point: dict[str, Any], point_origin: bytes, body: bytes) -> dict[str, Any]:
        """Return the description of the machine."""
        origin, at = behind_length(body, 0, 2)
        cipher = AESGCM(derive(self.session_secret(origin or point_origin), "body"))
        associated = b"vbackup 1 body" + self.family + bytes.fromhex(point["id"])
        described: dict[str, Any] = json.loads(cipher.decrypt(body[at : at + 12], body[at + 12 :], associated))
        return described

    def chunks(self, kind: int) -> Iterator[Chunk]:
        """Yield the chunks of a kind, pack by pack."""
        for path in sorted((self.root / "packs").glob("??/*")):
            try:
                yield from (chunk for chunk in self.contents(path) if chunk.kind == kind)
            except DAMAGE as error:
                complain(f"pack {path.name} is damaged: {error!r}")

    def contents(self, path: Path) -> list[Chunk]:
        """Return what a pack says that it has."""
        with path.open("rb") as file:
            file.seek(8)
            header = file.read(int.from_bytes(file.read(4), "little"))
            file.seek(-12, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-12 - length, 2)
            footer = self.unseal("pack footer", header, file.read(length))
        origins, at = [], 0
        while at < len(header):
            origin, at = behind_length(header, at, 2)
            origins.append(origin)
        entries = ENTRY.iter_unpack(footer)
        return [Chunk(path, origins[number], name, kind, *place) for name, kind, number, *place in entries]

    def read(self, chunk: Chunk) -> bytes | None:
        """Return the plain bytes of a chunk, which are checked; None for a damaged one."""
        try:
            with chunk.pack.open("rb") as file:
                file.seek(chunk.offset)
                data = self.decode(chunk, file.read(chunk.length))
            if blake3(data, key=self.id_keys[chunk.kind]).digest() == chunk.id:
                return data
            complain(f"a chunk in pack {chunk.pack.name} is not what was stored")
        except DAMAGE as error:
            complain(f"a chunk in pack {chunk.pack.name} is damaged: {error!r}")
        return None

    def decode(self, chunk: Chunk, blob: bytes) -> bytes:
        mask, nonce, data = blob[0], blob[1:13], blob[13:]
        codecs = chunk.origin[1188:].decode().split(",")
        of_map = chunk.kind == NODE
        secret = derive(self.write, "session maps", chunk.origin[:16]) if of_map else self.session_secret(chunk.origin)
        for place in (place for place in reversed(range(8)) if mask >> place & 1):
            name, applied = codecs[place], mask & ((2 << place) - 1)
            if name in CIPHERS:
                associated = self.family + bytes((chunk.kind, applied)) + chunk.id
                data = CIPHERS[name](derive(secret, f"codec {place} {name}")).decrypt(nonce, data, associated)
            else:
                data = CODECS[name](data)
        return data

    def places(self, root: bytes, size: int) -> dict[bytes, list[int]]:
        """Return which chunks a disk has, and at which offsets, by its map."""
        nodes: dict[bytes, list[Chunk]] = defaultdict(list)
        for chunk in self.chunks(NODE):
            nodes[chunk.id].append(chunk)
        found: dict[bytes, list[int]] = defaultdict(list)

        def walk(node: bytes, level: int, offset: int) -> None:
            span = self.chunk_size * 256**level
            if level == 0 and node != ZEROS:
                found[node].append(offset)
            elif node != ZEROS:
                children = next(filter(None, map(self.read, nodes[node])), b"")
                if not children:  # no pack will have the node's own id, which stands for all that is lost with it
                    found[node] += range(offset, min(offset + span, size), self.chunk_size)
                for number in range(len(children) // 32):
                    walk(children[32 * number : 32 * number + 32], level - 1, offset + number * (span // 256))

        walk(root, next(level for level in range(1, 8) if self.chunk_size * 256**level >= size), 0)
        return found

    def write_part(self, point: dict[str, Any], name: str, path: Path) -> int:
        """Write a disk, or a file, of a point; return the chunks of it that are lost."""
        disk = next((disk for disk in point["disks"] if disk["key"] == name), None)
        if disk:
            kind, size, wanted = DATA, disk["size"], self.places(bytes.fromhex(disk["content"]["map"]), disk["size"])
        else:
            kind, size, wanted = FILE, point["files"][name]["size"], defaultdict(list)
            for number, chunk_id in enumerate(point["files"][name]["chunks"]):
                wanted[bytes.fromhex(chunk_id)].append(number * self.chunk_size)
        wanted.pop(ZEROS, None)
        with path.open("xb") as out:
            out.truncate(size)
            for chunk in self.chunks(kind):
                if chunk.id in wanted and (data := self.read(chunk)) is not None:
                    for offset in wanted.pop(chunk.id):
                        out.seek(offset)
                        out.write(data)
        lost = sorted(offset for offsets in wanted.values() for offset in offsets)
        for _, run in groupby(enumerate(lost), lambda numbered: numbered[1] - numbered[0] * self.chunk_size):
            offsets = [offset for _, offset in run]
            complain(f"lost, and left as zeros: {len(offsets) * self.chunk_size} bytes at {offsets[0]}")
        return len(lost)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3, 5):
        sys.exit(__doc__)
    repository = Repository(Path(arguments[0]), Path(arguments[1]).read_bytes().removesuffix(b"\n"))
    points = sorted(repository.points(), key=lambda found: found[0]["time"])
    if len(arguments) == 2:
        for point, _, _ in points:
            parts = [f"{disk['key']} ({disk['size']} bytes)" for disk in point["disks"]] + list(point["files"])
            print(point["id"], point["time"], f"{point['hypervisor']}:{point['machine']}:", ", ".join(parts))
        return 0
    wanted = [found for found in points if found[0]["id"].startswith(arguments[2])]
    if len(wanted) != 1:
        sys.exit(f"recover.py: {len(wanted)} restore points begin with {arguments[2]}")
    point, origin, body = wanted[0]
    if len(arguments) == 3:
        print(json.dumps(repository.machine(point, origin, body), indent=2))
        return 0
    if arguments[3] not in [disk["key"] for disk in point["disks"]] + list(point["files"]):
        sys.exit(f"recover.py: this restore point has no {arguments[3]}")
    return 1 if repository.write_part(point, arguments[3], Path(arguments[4])) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"recover.py: {error}")
