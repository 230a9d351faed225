"""How numbers travel in fewer bits: the options of a quantized operation."""

from __future__ import annotations

import functools
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from pyccl import _core
from pyccl.arrays import ArrayLike, apart, floats, same
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.options import code, integer

Codec = Literal[
    "int8", "int8_minmax", "int4", "int4_minmax",
    "fp8_e4m3", "fp8_e5m2", "fp4_e3m0", "fp4_e2m1",
    "e4m3", "e5m2", "e3m0", "e2m1",
]  # fmt: skip
Rounding = Literal["nearest", "stochastic"]
Precision = Literal["f32", "bf16"]

_SHORT_FORMS = {name.split("_")[1]: name for name in _core.codecs if name.startswith("fp")}
_PRECISIONS = {name: _core.dtypes[name] for name in ("f32", "bf16")}
_BLOCK_STEP, _BLOCK_MAX = 32, 1024
_SEED_MAX = (1 << 64) - 1
_COUNT_MAX = 1 << 60


@dataclass(frozen=True)
class Quantization:
    """How the numbers of an operation become few bits on their way.

    The numbers of each array are taken in blocks, from its beginning. A block becomes one scale s
    and a short code for each number. Arrays hold f32, f64, f16 or bf16; f64 is rounded to f32
    first.

    codec: what the codes stand for. With m the largest magnitude of a block, a number x comes back
        as one that differs by at most

        =============  =================  ==============  =============  =====  ===============
        codec          s                  nearest         stochastic     bits   good for
        =============  =================  ==============  =============  =====  ===============
        "int8"         m / 127            s/2             s              8.125  the default
        "int8_minmax"  (max - min) / 255  s/2             s              8.25   one-sided data
        "int4"         m / 7              s/2             s              4.125  even spreads
        "int4_minmax"  (max - min) / 15   s/2             s              4.25   one-sided data
        "fp8_e4m3"     m / 448            |x|/16, s/2^10  |x|/8, s/2^9   8.125  wide ranges
        "fp8_e5m2"     m / 57344          |x|/8, s/2^17   |x|/4, s/2^16  8.125  yet wider ones
        "fp4_e3m0"     m / 16             |x|/3, s/8      |x|, s/4       4.125  pseudo-gradients
        "fp4_e2m1"     m / 6              |x|/5, s/4      |x|/2, s/2     4.125  between the two
        =============  =================  ==============  =============  =====  ===============

        Of two bounds the larger one counts. Integers have the same error everywhere in a block,
        floating point has one in proportion to the number. With 4 bits think of ErrorFeedback.
        "bits" is what a number costs in full blocks of 256 with f32 scales. "e4m3", "e5m2", "e3m0"
        and "e2m1" are short for the names above.
    block: numbers that share a scale, a multiple of 32 from 32 to 1024. Shorter ones follow the
        data closer and cost more: a scale of f32 adds 32 / block bits to each number, of "minmax"
        twice that. A short last block is as long on the wire as a full one.
    rounding: "nearest" (ties to the even code), or "stochastic": up or down by chance, so that the
        result is right on average.
    scale: the type of scales on the wire, "f32" or "bf16". A bf16 scale is rounded up, so s is
        larger by up to 1 in 128. The least number of a "minmax" block is rounded down to it too: a
        block far from zero comes back much coarser than (max - min) lets expect.
    partial: the type in which sums that are not yet complete travel where the algorithm passes them
        on, as a ring does: "f32", or "bf16" in half the bytes. Then each of the n - 1 hops rounds
        the sum by up to 2^-9 of what it has come to; f32 by 2^-24.
    lossless: None, or "zstd": what is sent is compressed once more. For slow links.
    seed: from 0 to 2^64 - 1, for stochastic rounding: what is drawn is a function of the seed and
        the place in the array alone (in reduce_scatter: in the share of a rank). The same seed on
        all peers makes their errors alike, so that they do not cancel: give each peer its own. The
        same seed at every step repeats the draws: change it every step, with
        dataclasses.replace(q, seed=...).

    The defaults cost 8.125 bits a number, 0.254 of f32, and are off by at most 1 in 254 of a
    block's largest number. Blocks of 256 keep outliers among themselves for an eighth of a bit,
    nearest rounding has the smallest error, and f32 scales and partial sums add none of their own.

    A block with a NaN or an infinity comes back as NaN in all its places: what is no number never
    turns into one. So does one with a number, or a sum, beyond the range of f32. Subnormal numbers
    are kept, with a scale of at least 2^-149 (bf16: 2^-133). A block of zeros comes back exactly,
    and -0 as +0. With bf16 scales numbers beyond 127/128 of f32's range may come back smaller by up
    to 1 in 128. What comes back rounded up beyond the range of its array's type, as it can in f16
    close to 65504, is an infinity.
    """

    codec: Codec = "int8"
    _: KW_ONLY
    block: int = 256
    rounding: Rounding = "nearest"
    scale: Precision = "f32"
    partial: Precision = "f32"
    lossless: Literal["zstd"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        codec: Any = self.codec
        if isinstance(codec, str):
            codec = _SHORT_FORMS.get(codec, codec)
        code(_core.codecs, codec, "codec")
        code(_core.roundings, self.rounding, "rounding")
        code(_PRECISIONS, self.scale, "scale")
        code(_PRECISIONS, self.partial, "partial")
        if self.lossless is not None and self.lossless != "zstd":
            raise InvalidArgumentError(f"lossless is {self.lossless!r}, but must be None or 'zstd'")
        block = integer(self.block, "block", _BLOCK_STEP, _BLOCK_MAX)
        if block % _BLOCK_STEP:
            raise InvalidArgumentError(
                f"block is {block}, but must be a multiple of {_BLOCK_STEP}: whole vectors"
            )
        # One spelling and plain numbers, so that equal ones are equal.
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "seed", integer(self.seed, "seed", 0, _SEED_MAX))

    @classmethod
    def of(cls, value: Quantization | Codec | None) -> Quantization | None:
        """From what operations take as `quantization`: a Quantization, the name of a codec, which
        stands for that one with defaults, or None."""
        if value is None or isinstance(value, Quantization):
            return value
        if isinstance(value, str):
            return _with_defaults(value)
        raise InvalidTypeError(
            f"quantization is {value!r}, but must be a Quantization, the name of a codec or None"
        )

    def wire_bytes(self, count: int) -> int:
        """The bytes that so many numbers of one array take, before lossless compression."""
        return _format_of(self).wire_bytes(integer(count, "count", 0, _COUNT_MAX))

    def rounded(self, x: ArrayLike, *, out: ArrayLike | None = None) -> tuple[Any, float]:
        """What `x` looks like after its way: what one peer's numbers become for all others.

        x: as for Communicator.all_reduce(), an array or a list of arrays; of floating point.
        out: where the result goes, of the same shapes and types: `x` itself, or memory that it has
            nothing in common with.

        Returns the result, which is `out` or new numpy arrays, and the largest step: the distance
        of those neighbouring values that lie farthest apart. No number is off by more than half of
        it (stochastic rounding: all of it), rounding of f32 and of the array's type apart.
        """
        floats(x)
        arrays, result = apart(x, out, 0, same)
        step = _core.rounded(arrays, _format_of(self), _core.roundings[self.rounding], self.seed)
        return result, step


@functools.lru_cache(maxsize=64)
def _with_defaults(codec: Codec) -> Quantization:
    return Quantization(codec)


def _format_of(one: Quantization) -> _core.BlockFormat:
    return _format(one.codec, one.block, one.scale)


@functools.lru_cache(maxsize=256)
def _format(codec: str, block: int, scale: str) -> _core.BlockFormat:
    return _core.BlockFormat(_core.codecs[codec], block, _PRECISIONS[scale])
