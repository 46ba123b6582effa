"""Damage a file: blindly, or in the structure of its format, so that checksums do not reveal it."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

from n2n_lightning.image_io.encoding import PNG_SIGNATURE, as_chunk, png_chunks

ODD = (  # numbers that readers may stumble over
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    17,
    255,
    256,
    4096,
    20_000,
    65_535,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
HEAD_BYTES = 256
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 13: 4, 16: 8}  # bytes of a TIFF tag's types


def mutated(content: bytes, suffix: str, donor: bytes, rng: Random) -> tuple[str, bytes]:
    """Damage a file at random; return the name of the way, and the damaged content.

    Args:
        content: content of the file.
        suffix: suffix of its name.
        donor: content of another file, to take bytes from.
        rng: random generator.
    """
    ways = [truncated, flipped, spliced, blown, blown, zeroed]
    structural = STRUCTURAL.get(suffix)
    way = rng.choice([*ways, *([structural] * len(ways) if structural else ())])
    damaged = way(content, donor, rng)
    if rng.random() < 0.2:
        damaged = flipped(damaged, donor, rng)
    return way.__name__, damaged


def truncated(content: bytes, donor: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flipped(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Flip up to 16 bits, half of the time near the beginning."""
    data = bytearray(content)
    reach = min(len(data), HEAD_BYTES) if rng.random() < 0.5 else len(data)
    for _ in range(rng.randint(1, 16) if reach else 0):
        data[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(data)


def spliced(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Insert bytes of this or of another file, or replace bytes by them."""
    source = rng.choice([content, donor])
    start, place = rng.randrange(len(source)), rng.randrange(len(content))
    piece = source[start : start + rng.randint(1, 400)]
    return content[:place] + piece + content[place + rng.choice([0, len(piece), rng.randint(0, 400)]) :]


def blown(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Replace a number near the beginning or the end by one that is too big, too small, or odd."""
    data = bytearray(content)
    size = min(rng.choice([1, 2, 4, 8]), len(data))
    place = rng.randrange(min(len(data), HEAD_BYTES))
    place = min(place if rng.random() < 0.7 else len(data) - 1 - place, len(data) - size)
    value = rng.choice(ODD) % 256**size
    data[place : place + size] = value.to_bytes(size, rng.choice(["little", "big"]))
    return bytes(data)


def zeroed(content: bytes, donor: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + bytes(len(content[start : start + rng.randint(1, 200)])) + content[start + 200 :]


def rearranged(pieces: list[bytes], rng: Random) -> list[bytes]:
    """Reorder the pieces of a file, or duplicate or drop one."""
    match rng.choice(["shuffle", "swap", "double", "drop"]):
        case "shuffle":
            rng.shuffle(pieces)
        case "swap":
            one, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
            pieces[one], pieces[other] = pieces[other], pieces[one]
        case "double":
            pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(pieces))
        case "drop":
            del pieces[rng.randrange(len(pieces))]
    return pieces


def png(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Rearrange chunks, or change one and give it a correct checksum."""
    chunks = list(png_chunks(content))
    if rng.random() < 0.4:
        return PNG_SIGNATURE + b"".join(rearranged([as_chunk(*chunk) for chunk in chunks], rng))
    number = 0 if rng.random() < 0.5 else rng.randrange(len(chunks))
    kind, data = chunks[number]
    if kind == b"IDAT" and rng.random() < 0.5:
        data = zlib.compress(flipped(zlib.decompress(data) + bytes(rng.choice([0, 10**6])), donor, rng))
    elif data:
        data = rng.choice([blown, blown, flipped, truncated])(data, donor, rng)
    chunks[number] = kind, data
    return PNG_SIGNATURE + b"".join(as_chunk(*chunk) for chunk in chunks)


def jpeg(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Rearrange segments, or change one."""
    starts = [match.start() for match in re.finditer(rb"\xff[\xc0-\xfe]", content)]
    pieces = [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]
    if rng.random() < 0.4:
        return b"".join(pieces[:1] + rearranged(pieces[1:], rng))
    frames = [n for n, piece in enumerate(pieces) if piece[1] in (0xC0, 0xC2)]
    number = rng.choice(frames) if frames and rng.random() < 0.5 else rng.randrange(len(pieces))
    pieces[number] = pieces[number][:4] + blown(pieces[number][4:] or b"\0", donor, rng)
    return b"".join(pieces)


def webp(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Rearrange RIFF chunks or change one, and write the correct length."""
    pieces, start = [], 12
    while start + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, start + 4)
        pieces.append(content[start : start + 8 + length + length % 2])
        start += len(pieces[-1])
    if rng.random() < 0.4:
        pieces = rearranged(pieces, rng)
    else:
        number = rng.randrange(len(pieces))
        pieces[number] = pieces[number][:8] + blown(pieces[number][8:] or b"\0", donor, rng)
    body = b"WEBP" + b"".join(pieces)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Change fields of the header."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 2)):
        place, size = rng.choice([(2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (28, 2), (30, 4), (46, 4)])
        data[place : place + size] = (rng.choice(ODD) % 256**size).to_bytes(size, "little")
    return bytes(data)


def tiff(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Change a tag's code, type, count or value, swap two tags, or let the chain of pages lead elsewhere."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2) == (43,)
    word, counter, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    word_bytes, head_bytes = struct.calcsize(word), struct.calcsize(counter)
    data, ifd = bytearray(content), struct.unpack_from(f"{order}{word}", content, 8 if big else 4)[0]
    (count,) = struct.unpack_from(f"{order}{counter}", data, ifd)
    end = ifd + head_bytes + count * entry_bytes
    entries = [ifd + head_bytes + number * entry_bytes for number in range(count)]
    entry = rng.choice(entries)
    match rng.choice(["code", "type", "count", "value", "value", "value", "swap", "chain", "indirect"]):
        case "code":
            struct.pack_into(f"{order}H", data, entry, struct.unpack_from(f"{order}H", data, rng.choice(entries))[0])
        case "type":
            struct.pack_into(f"{order}H", data, entry + 2, rng.randrange(19))
        case "count":
            struct.pack_into(f"{order}{word}", data, entry + 4, rng.choice(ODD) % 256**word_bytes)
        case "value":
            kind = SIZES.get(struct.unpack_from(f"{order}H", data, entry + 2)[0], 4)
            form = {1: "B", 2: "H", 4: "I", 8: "Q"}[min(kind, word_bytes)]
            place = entry + 4 + word_bytes
            struct.pack_into(f"{order}{form}", data, place, rng.choice(ODD) % 256 ** struct.calcsize(form))
        case "swap":
            other = rng.choice(entries)
            one = bytes(data[entry : entry + entry_bytes])
            data[entry : entry + entry_bytes] = data[other : other + entry_bytes]
            data[other : other + entry_bytes] = one
        case "chain":
            struct.pack_into(f"{order}{word}", data, end, rng.choice([ifd, ifd + 2, 8, 0, len(data) - 2, *entries]))
        case "indirect":  # values outside the directory: lists of offsets and counts, text
            (place,) = struct.unpack_from(f"{order}{word}", data, entry + 4 + word_bytes)
            if place + 8 <= len(data):
                struct.pack_into(f"{order}I", data, place, rng.choice(ODD) % 2**32)
    return bytes(data)


def npy(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Change numbers, types and words in the header's text, and write the correct length."""
    (length,) = struct.unpack_from("<H", content, 8)
    header, values = content[10 : 10 + length].decode("latin1"), content[10 + length :]
    numbers = list(re.finditer(r"\d+", header))
    match rng.choice(["number", "type", "word", "axis", "long"]):
        case "number":
            found = rng.choice(numbers)
            header = header[: found.start()] + str(rng.choice([*ODD, -1, -40])) + header[found.end() :]
        case "type":
            kinds = ("O", "|O", "<U9", "<M8[s]", "<c16", "|b1", "<f2", "<u8", "|V3", "<f16", "x", "<i4,<i4")
            header = re.sub(r"'[<>|]\w\d'", repr(rng.choice(kinds)), header)
        case "word":
            header = header.replace(*rng.choice([("True", "1"), ("False", "True"), ("descr", "desc"), ("{", "[")]))
        case "axis":
            header = header.replace("(", rng.choice(["(1, ", "(0, ", "(" + "1, " * 40, "(" * 90, "(4, 4, 4, "]), 1)
        case "long":
            header += " " * rng.choice([1, 9_000, 50_000])
    stored = header.encode("latin1")[:65_535]
    return content[:8] + struct.pack("<H", len(stored)) + stored + values


def archive(content: bytes, donor: bytes, rng: Random) -> bytes:
    """Change, drop, rename or compress members of a torch file, and write correct checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(info.filename, file.read(info)) for info in file.infolist()]
    number = 0 if rng.random() < 0.7 else rng.randrange(len(members))  # the first is the pickle
    name, data = members[number]
    match rng.choice(["change", "change", "change", "drop", "double", "rename"]):
        case "change":
            way: Callable[[bytes, bytes, Random], bytes] = rng.choice([flipped, spliced, blown, truncated])
            members[number] = name, way(data or b"\0", donor, rng)
        case "drop":
            del members[number]
        case "double":
            members.append((f"{name}2", data))
        case "rename":
            members[number] = rng.choice(["../../x", "/x", "archive/data.pkl", "x" * 999, name.upper()]), data
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
        for name, data in members:
            file.writestr(name, data)
    return packed.getvalue()


STRUCTURAL: dict[str, Callable[[bytes, bytes, Random], bytes]] = {
    ".png": png,
    ".jpg": jpeg,
    ".webp": webp,
    ".bmp": bmp,
    ".tif": tiff,
    ".npy": npy,
    ".pkl": archive,
    ".ckpt": archive,
}
