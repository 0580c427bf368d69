"""XXH3 as its specification reads (xxHash repository, doc/xxhash_spec.md), on Python integers; slow and obvious.

The xxhash package takes no custom secret; this does. With the default secret the two are compared, too.
"""

from __future__ import annotations

M32, M64 = 2**32 - 1, 2**64 - 1
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
DEFAULT_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def word(data: bytes, at: int, size: int = 8) -> int:
    assert 0 <= at <= len(data) - size
    return int.from_bytes(data[at : at + size], "little")


def swap(x: int, size: int) -> int:
    return int.from_bytes(x.to_bytes(size, "little"), "big")


def rotate(x: int, by: int, bits: int) -> int:
    return (x << by | x >> (bits - by)) & (2**bits - 1)


def fold(x: int, y: int) -> int:
    return (x * y & M64) ^ (x * y >> 64)


def avalanche(x: int) -> int:
    x &= M64
    x = (x ^ x >> 37) * MX1 & M64
    return x ^ x >> 32


def avalanche_xxh64(x: int) -> int:
    x &= M64
    x = (x ^ x >> 33) * P64[1] & M64
    x = (x ^ x >> 29) * P64[2] & M64
    return x ^ x >> 32


def pair(secret: bytes, at: int) -> int:
    return word(secret, at) ^ word(secret, at + 8)


def combined_3(data: bytes) -> int:
    return data[-1] | len(data) << 8 | data[0] << 16 | data[len(data) >> 1] << 24


def spread(seed: int) -> int:
    return seed ^ swap(seed & M32, 4) << 32


def mix_step(chunk: bytes, secret: bytes, at: int, seed: int) -> int:
    return fold(word(chunk, 0) ^ (word(secret, at) + seed & M64), word(chunk, 8) ^ (word(secret, at + 8) - seed & M64))


def inward(data: bytes) -> list[tuple[bytes, bytes]]:
    """Chunks of 16 bytes from the front with their partners from the back, innermost first."""
    count = (len(data) + 31) // 32
    return [(data[16 * i :][:16], data[len(data) - 16 * i - 16 :][:16]) for i in reversed(range(count))]


def short_64(data: bytes, secret: bytes, seed: int) -> int:
    n = len(data)
    if n == 0:
        return avalanche_xxh64(seed ^ pair(secret, 56))
    if n <= 3:
        return avalanche_xxh64((word(secret, 0, 4) ^ word(secret, 4, 4)) + seed & M64 ^ combined_3(data))
    if n <= 8:
        value = (pair(secret, 8) - spread(seed) & M64) ^ (word(data, n - 4, 4) | word(data, 0, 4) << 32)
        value = (value ^ rotate(value, 49, 64) ^ rotate(value, 24, 64)) * MX2 & M64
        value = (value ^ (value >> 35) + n) * MX2 & M64
        return value ^ value >> 28
    if n <= 16:
        low = (pair(secret, 24) + seed & M64) ^ word(data, 0)
        high = (pair(secret, 40) - seed & M64) ^ word(data, n - 8)
        return avalanche(n + swap(low, 8) + high + fold(low, high))
    total = n * P64[0]
    if n <= 128:
        pairs = inward(data)
        for i, (front, back) in zip(reversed(range(len(pairs))), pairs, strict=True):
            total += mix_step(front, secret, 32 * i, seed) + mix_step(back, secret, 32 * i + 16, seed)
        return avalanche(total)
    chunks = [data[16 * i :][:16] for i in range(n // 16)]
    total = avalanche(total + sum(mix_step(chunk, secret, 16 * i, seed) for i, chunk in enumerate(chunks[:8])))
    total += sum(mix_step(chunk, secret, 16 * i + 3, seed) for i, chunk in enumerate(chunks[8:]))
    return avalanche(total + mix_step(data[-16:], secret, 119, seed))


def short_128(data: bytes, secret: bytes, seed: int) -> tuple[int, int]:
    n = len(data)
    if n == 0:
        return avalanche_xxh64(seed ^ pair(secret, 64)), avalanche_xxh64(seed ^ pair(secret, 80))
    if n <= 3:
        turned = rotate(swap(combined_3(data), 4), 13, 32)
        high = ((word(secret, 8, 4) ^ word(secret, 12, 4)) - seed & M64) ^ turned
        return short_64(data, secret, seed), avalanche_xxh64(high)
    if n <= 8:
        value = (pair(secret, 16) + spread(seed) & M64) ^ (word(data, 0, 4) | word(data, n - 4, 4) << 32)
        product = value * (P64[0] + (n << 2))
        high = (product >> 64) + ((product & M64) << 1) & M64
        low = (product & M64) ^ high >> 3
        low = (low ^ low >> 35) * MX2 & M64
        return low ^ low >> 28, avalanche(high)
    if n <= 16:
        value1 = (pair(secret, 32) - seed & M64) ^ word(data, 0) ^ word(data, n - 8)
        value2 = (pair(secret, 48) + seed & M64) ^ word(data, n - 8)
        product = value1 * P64[0]
        low = (product & M64) + (n - 1 << 54) & M64
        high = (product >> 64) + (value2 >> 32 << 32) + (value2 & M32) * P32[1] & M64
        product = ((low ^ swap(high, 8)) | high << 64) * P64[1]
        return avalanche(product), avalanche(product >> 64)
    low, high = n * P64[0] & M64, 0

    def mix_two(first: bytes, second: bytes, at: int, seed: int) -> None:
        nonlocal low, high
        low = (low + mix_step(first, secret, at, seed) & M64) ^ (word(second, 0) + word(second, 8) & M64)
        high = (high + mix_step(second, secret, at + 16, seed) & M64) ^ (word(first, 0) + word(first, 8) & M64)

    if n <= 128:
        pairs = inward(data)
        for i, (front, back) in zip(reversed(range(len(pairs))), pairs, strict=True):
            mix_two(front, back, 32 * i, seed)
    else:
        for i in range(4):
            mix_two(data[32 * i :][:16], data[32 * i + 16 :][:16], 32 * i, seed)
        low, high = avalanche(low), avalanche(high)
        for i in range(4, n // 32):
            mix_two(data[32 * i :][:16], data[32 * i + 16 :][:16], 32 * (i - 4) + 3, seed)
        mix_two(data[-16:], data[-32:-16], 103, -seed & M64)
    return avalanche(low + high), -avalanche(low * P64[0] + high * P64[3] + (n - seed) * P64[1]) & M64


def long_lanes(data: bytes, secret: bytes) -> list[int]:
    lanes = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]

    def accumulate(stripe: bytes, at: int) -> None:
        for i in range(8):
            value = word(stripe, 8 * i) ^ word(secret, at + 8 * i)
            lanes[i ^ 1] = lanes[i ^ 1] + word(stripe, 8 * i) & M64
            lanes[i] = lanes[i] + (value & M32) * (value >> 32) & M64

    stripes_per_block = (len(secret) - 64) // 8
    block_bytes = 64 * stripes_per_block
    blocks = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    for block in blocks[:-1]:
        for i in range(stripes_per_block):
            accumulate(block[64 * i :][:64], 8 * i)
        for i in range(8):
            mixed = lanes[i] ^ lanes[i] >> 47 ^ word(secret, len(secret) - 64 + 8 * i)
            lanes[i] = mixed * P32[0] & M64
    for i in range((len(blocks[-1]) - 1) // 64):
        accumulate(blocks[-1][64 * i :][:64], 8 * i)
    accumulate(data[-64:], len(secret) - 71)
    return lanes


def final_merge(lanes: list[int], start: int, secret: bytes, at: int) -> int:
    masked = [lane ^ word(secret, at + 8 * i) for i, lane in enumerate(lanes)]
    return avalanche(start + sum(fold(masked[i], masked[i + 1]) for i in range(0, 8, 2)))


def derived_secret(seed: int) -> bytes:
    words = [word(DEFAULT_SECRET, at) for at in range(0, 192, 8)]
    return b"".join((w + (-seed if i % 2 else seed) & M64).to_bytes(8, "little") for i, w in enumerate(words))


def secrets(seed: int, secret: bytes | None) -> tuple[bytes, bytes]:
    """The secret of inputs up to 240 bytes and that of longer ones."""
    if secret is None:
        return DEFAULT_SECRET, derived_secret(seed)
    return (DEFAULT_SECRET if seed else secret), secret


def xxh3_64(data: bytes, seed: int = 0, secret: bytes | None = None) -> int:
    short_secret, long_secret = secrets(seed, secret)
    if len(data) <= 240:
        return short_64(data, short_secret, seed)
    return final_merge(long_lanes(data, long_secret), len(data) * P64[0], long_secret, 11)


def xxh3_128(data: bytes, seed: int = 0, secret: bytes | None = None) -> int:
    short_secret, long_secret = secrets(seed, secret)
    if len(data) <= 240:
        low, high = short_128(data, short_secret, seed)
    else:
        lanes = long_lanes(data, long_secret)
        low = final_merge(lanes, len(data) * P64[0], long_secret, 11)
        high = final_merge(lanes, ~(len(data) * P64[1]) & M64, long_secret, len(long_secret) - 75)
    return high << 64 | low
