"""XXH3: every kernel, length class, alignment, seed and secret."""

from __future__ import annotations

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from gobanfast._core import xxh3
from gobanfast._core.block import cpu_cap, cpu_levels
from oracle import xxh3 as oracle

KERNELS = sorted({xxh3.kernel_name(cpu_cap(level)) for level in cpu_levels()})
EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS)
SEEDS = st.integers(0, 2**64 - 1)
# Ends of every length class, of a stripe (64) and of a block (1,024 with the default secret).
EDGES = (
    0,
    1,
    3,
    4,
    8,
    9,
    16,
    17,
    32,
    33,
    64,
    96,
    97,
    128,
    129,
    160,
    239,
    240,
    241,
    256,
    257,
    320,
    1023,
    1024,
    1025,
    2049,
)
SEED = 0x9E3779B97F4A7C15


def random_bytes(nbytes: int) -> bytes:
    return random.Random(nbytes).randbytes(nbytes)


@EVERY_KERNEL
@pytest.mark.parametrize("seed", [0, 1, SEED, 2**64 - 1])
def test_every_length_equals_the_xxhash_package(kernel, seed):
    """Both hashes of every length up to 1,100 bytes are those of the xxhash package."""
    data = random_bytes(1100)
    lengths = range(1101)
    expected64 = [xxhash.xxh3_64_intdigest(data[:n], seed) for n in lengths]
    expected128 = [xxhash.xxh3_128_intdigest(data[:n], seed) for n in lengths]

    assert expected64 == [xxh3.xxh3_64(data[:n], seed, kernel=kernel) for n in lengths]
    assert expected128 == [xxh3.xxh3_128(data[:n], seed, kernel=kernel) for n in lengths]


@EVERY_KERNEL
def test_long_inputs_equal_the_xxhash_package(kernel):
    """Both hashes of inputs of up to 1 MiB, at random and on both sides of whole blocks, are those of the package."""
    source = random.Random(1)
    data = random_bytes(2**20)
    lengths = [int(2 ** source.uniform(10, 20)) for _ in range(60)]
    lengths += [1024 * blocks + more for blocks in (2, 3, 7, 64, 1023) for more in (-1, 0, 1)] + [2**20]
    for n in lengths:
        seed = source.getrandbits(64)

        assert xxhash.xxh3_64_intdigest(data[:n], seed) == xxh3.xxh3_64(data[:n], seed, kernel=kernel)
        assert xxhash.xxh3_128_intdigest(data[:n], seed) == xxh3.xxh3_128(data[:n], seed, kernel=kernel)


@EVERY_KERNEL
@pytest.mark.parametrize("nbytes", EDGES)
def test_alignment_changes_nothing(kernel, nbytes):
    """The same bytes hash to the same values at every offset from a 64-byte boundary."""
    data = random_bytes(nbytes)
    expected = (xxh3.xxh3_64(data, kernel="scalar"), xxh3.xxh3_128(data, kernel="scalar"))
    room = bytearray(nbytes + 64)
    for offset in range(64):
        room[offset : offset + nbytes] = data
        view = memoryview(room)[offset : offset + nbytes]

        assert expected == (xxh3.xxh3_64(view, kernel=kernel), xxh3.xxh3_128(view, kernel=kernel))


@EVERY_KERNEL
@given(
    nbytes=st.integers(0, 1500) | st.sampled_from(EDGES),
    secret_bytes=st.integers(136, 256),
    seed=st.just(0) | SEEDS,
    secret_seed=st.integers(0, 2**32 - 1),
)
def test_secret_equals_the_specification(kernel, nbytes, secret_bytes, seed, secret_seed):
    """A custom secret, alone or with a seed, gives what the specification gives."""
    data, secret = random_bytes(nbytes), random.Random(secret_seed).randbytes(secret_bytes)

    assert oracle.xxh3_64(data, seed, secret) == xxh3.xxh3_64(data, seed, secret, kernel)
    assert oracle.xxh3_128(data, seed, secret) == xxh3.xxh3_128(data, seed, secret, kernel)


@EVERY_KERNEL
@pytest.mark.parametrize("seed", [0, SEED])
def test_secret_keys_every_length_class(kernel, seed):
    """A custom secret gives what the specification gives for every length up to 300 bytes."""
    data, secret = random_bytes(300), random_bytes(197)
    lengths = range(301)
    expected = [oracle.xxh3_128(data[:n], seed, secret) for n in lengths]

    assert expected == [xxh3.xxh3_128(data[:n], seed, secret, kernel) for n in lengths]
    assert [oracle.xxh3_64(data[:n], seed, secret) for n in lengths] == [
        xxh3.xxh3_64(data[:n], seed, secret, kernel) for n in lengths
    ]


@given(nbytes=st.integers(0, 1500) | st.sampled_from(EDGES), seed=st.just(0) | SEEDS)
def test_oracle_equals_the_xxhash_package(nbytes, seed):
    """The oracle itself is right wherever the package can say."""
    data = random_bytes(nbytes)

    assert xxhash.xxh3_64_intdigest(data, seed) == oracle.xxh3_64(data, seed)
    assert xxhash.xxh3_128_intdigest(data, seed) == oracle.xxh3_128(data, seed)


@given(data=st.binary(max_size=2000), seed=SEEDS)
def test_best_kernel_equals_the_scalar_one(data, seed):
    """Leaving the kernel open changes no value."""
    assert xxh3.xxh3_64(data, seed, kernel="scalar") == xxh3.xxh3_64(data, seed)
    assert xxh3.xxh3_128(data, seed, kernel="scalar") == xxh3.xxh3_128(data, seed)


def test_secret_of_the_default_bytes_is_no_secret():
    """The default secret given by hand changes no value, whatever the length."""
    for n in EDGES:
        data = random_bytes(n)

        assert xxh3.xxh3_128(data) == xxh3.xxh3_128(data, secret=oracle.DEFAULT_SECRET)


@pytest.mark.parametrize("hash_of", [xxh3.xxh3_64, xxh3.xxh3_128])
def test_misuse_is_refused_by_name(hash_of):
    """A short secret, an unknown kernel and a seed that is no uint64 are errors that name the value."""
    with pytest.raises(ValueError, match=r"^secret has 135 bytes; give at least 136$"):
        hash_of(b"", secret=bytes(135))
    with pytest.raises(ValueError, match=r"^kernel='avx3' is not one of scalar"):
        hash_of(b"", kernel="avx3")
    with pytest.raises(ValueError, match=r"^kernel='scalar\\x00' is not one of"):
        hash_of(b"", kernel="scalar\0")
    for seed in (-1, 2**64):
        with pytest.raises(OverflowError):
            hash_of(b"", seed)
    with pytest.raises(BufferError):
        hash_of(memoryview(b"abcd")[::2])
    with pytest.raises(TypeError):
        hash_of("text")
