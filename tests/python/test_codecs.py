"""The codecs of quantized payloads: the core's bytes beside those of the numpy twin, their error
bounds, what stochastic rounding draws, and what becomes of numbers that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyccl import _core
from pyccl.arrays import read_only, written_only

from . import codecs as twin
from .codecs import CODECS, Array, Format

RELAXED = settings(max_examples=120, deadline=None, derandomize=True, database=None)

SCALES = ["f32", "bf16"]
ROUNDINGS = ["nearest", "stochastic"]
DTYPES = ["f32", "f64", "f16", "bf16"]
BLOCKS = [32, 64, 96, 256, 1024]

Rng = np.random.Generator
# A block's numbers, given the largest number of its type and that of its codec.
KINDS: dict[str, Callable[[Rng, int, float, int], Array]] = {
    "normal": lambda rng, n, big, top: rng.standard_normal(n),
    "positive": lambda rng, n, big, top: rng.uniform(0.25, 1, n),
    "negative": lambda rng, n, big, top: -rng.uniform(0.25, 1, n),
    "cauchy": lambda rng, n, big, top: rng.standard_cauchy(n),
    "lognormal": lambda rng, n, big, top: rng.lognormal(0, 8, n) * rng.choice([-1, 1], n),
    "zero": lambda rng, n, big, top: np.zeros(n),
    "negative zero": lambda rng, n, big, top: np.full(n, -0.0),
    "both zeros": lambda rng, n, big, top: rng.choice([0.0, -0.0], n),
    "zeros and ones": lambda rng, n, big, top: rng.choice([0.0, -0.0, 1.0], n),
    "constant": lambda rng, n, big, top: np.full(n, rng.standard_normal()),
    "far from zero": lambda rng, n, big, top: 1e4 + rng.standard_normal(n),
    "far below zero": lambda rng, n, big, top: -1e4 + rng.standard_normal(n) * 1e-3,
    "subnormal": lambda rng, n, big, top: rng.integers(-300, 300, n) * 2.0**-149,
    "least": lambda rng, n, big, top: rng.integers(-1, 2, n) * 2.0**-149,
    "about normal": lambda rng, n, big, top: rng.standard_normal(n) * 2.0**-122,
    "all sizes": lambda rng, n, big, top: rng.choice([-1, 1], n) * 2.0 ** rng.uniform(-150, 127, n),
    "halves": lambda rng, n, big, top: np.append(rng.integers(-2 * top, 2 * top, n - 1) / 2, top),
    "eighths": lambda rng, n, big, top: np.append(rng.integers(-64, 65, n - 1) / 8, top),
    "extreme": lambda rng, n, big, top: rng.choice([big, -big, 0.5 * big, 1.0], n),
    "large": lambda rng, n, big, top: rng.uniform(-big, big, n),
    "largest": lambda rng, n, big, top: np.full(n, big),
    "lowest": lambda rng, n, big, top: np.full(n, -big),
    "nan": lambda rng, n, big, top: rng.choice([np.nan, -np.nan, 1.0], n),
    "one nan": lambda rng, n, big, top: np.append(rng.standard_normal(n - 1), np.nan),
    "infinite": lambda rng, n, big, top: np.append(np.inf, rng.standard_normal(n - 1)),
    "negative infinite": lambda rng, n, big, top: np.append(rng.standard_normal(n - 1), -np.inf),
}


@dataclass
class Case:
    """What is encoded, and how."""

    kinds: list[str]  # of the blocks
    missing: int  # at the end of the last one
    block: int
    dtype: str
    scale: str
    rounding: str
    numbers: int  # the seed of the data
    seed: int
    first_block: int

    def form(self, name: str) -> Format:
        return Format(name, self.block, self.scale)

    def data(self, name: str) -> Array:
        rng = np.random.default_rng(self.numbers)
        dtype = twin.dtype_of(self.dtype)
        big = float(ml_dtypes.finfo(dtype).max) if self.dtype != "f64" else float(twin.MAX)
        blocks = [KINDS[one](rng, self.block, big, CODECS[name].top) for one in self.kinds]
        whole = np.concatenate([np.zeros(0), *blocks])
        with np.errstate(all="ignore"):
            x = whole.astype(dtype)
        return x[: max(0, x.size - self.missing % self.block)]


cases = st.builds(
    Case,
    kinds=st.lists(st.sampled_from(list(KINDS)), max_size=6),
    missing=st.one_of(st.just(0), st.integers(0, 1023)),
    block=st.sampled_from(BLOCKS),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from(SCALES),
    rounding=st.sampled_from(ROUNDINGS),
    numbers=st.integers(0, 2**32 - 1),
    seed=st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1)),
    first_block=st.one_of(st.just(0), st.integers(0, 2**40)),
)


def core_format(form: Format) -> _core.BlockFormat:
    return _core.BlockFormat(_core.codecs[form.name], form.block, _core.dtypes[form.scale])


def encode(
    x: Array, form: Format, rounding: str = "nearest", seed: int = 0, first_block: int = 0
) -> tuple[Array, float]:
    # Nothing may depend on what the memory held.
    wire = np.full(form.blocks(x.size) * form.block_bytes, 0xAA, np.uint8)
    step = _core.encode(
        read_only(x), written_only(wire), core_format(form), _core.roundings[rounding], seed,
        first_block,
    )  # fmt: skip
    return wire, step


def decode(wire: Array, form: Format, count: int, dtype: str = "f32") -> tuple[Array, float]:
    x = np.full(count, 7, twin.dtype_of(dtype))
    step = _core.decode(read_only(wire), written_only(x), core_format(form))
    return x, step


def rounded(x: Array, form: Format, rounding: str, seed: int) -> tuple[Array, float]:
    out = x.copy()
    arrays = _core.Arrays(1)
    if not arrays.add(out, None, -1):
        assert arrays.add(out.view(np.uint16), None, _core.dtypes["bf16"])
    return out, _core.rounded(arrays, core_format(form), _core.roundings[rounding], seed)


def same_bits(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    bits = found.view(f"u{found.itemsize}"), expected.view(f"u{found.itemsize}")
    np.testing.assert_array_equal(*bits)


@pytest.mark.parametrize("name", CODECS)
@given(case=cases)
@RELAXED
def test_the_bytes_are_those_of_the_twin(name: str, case: Case) -> None:
    form, x = case.form(name), case.data(name)
    expected = twin.encode(twin.widen(x), form, case.rounding, case.seed, case.first_block)
    wire, step = encode(x, form, case.rounding, case.seed, case.first_block)
    same_bits(wire, expected)
    assert step == twin.largest_step(expected, form)

    values = twin.decode(expected, form, x.size)
    for dtype in {"f32", case.dtype}:
        found, found_step = decode(wire, form, x.size, dtype)
        same_bits(found, twin.narrow(values, found.dtype))
        assert found_step == step
    again, again_step = encode(x, form, case.rounding, case.seed, case.first_block)
    same_bits(again, wire)
    assert again_step == step


@pytest.mark.parametrize("name", CODECS)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from(SCALES), block=st.sampled_from(BLOCKS))
@RELAXED
def test_any_bytes_can_be_decoded(name: str, seed: int, scale: str, block: int) -> None:
    form, rng = Format(name, block, scale), np.random.default_rng(seed)
    wire = rng.integers(0, 256, (8, form.block_bytes), dtype=np.uint8)
    wire[:2, : form.head_bytes] = rng.choice([0, 0x7F, 0x80, 0xFF], form.head_bytes)
    # Scales that are used come from half of the blocks, wild ones from the rest.
    wire[4:, form.head_bytes // (1 + form.codec.minmax) - 1] = 0x3F
    wire = wire.ravel()
    count = 8 * block - int(rng.integers(0, block))
    same_bits(decode(wire, form, count)[0], twin.decode(wire, form, count))


@pytest.mark.parametrize("name", CODECS)
@given(case=cases)
@RELAXED
def test_the_round_trip_is_encoding_and_decoding(name: str, case: Case) -> None:
    form, x = case.form(name), case.data(name)
    wire, step = encode(x, form, case.rounding, case.seed)
    found, found_step = rounded(x, form, case.rounding, case.seed)
    same_bits(found, decode(wire, form, x.size, case.dtype)[0])
    assert found_step == step


@pytest.mark.parametrize("name", CODECS)
@given(case=cases)
@RELAXED
def test_no_number_is_off_by_more_than_the_bound(name: str, case: Case) -> None:
    form, x = case.form(name), twin.widen(case.data(name))
    wire, step = encode(x, form, case.rounding, case.seed)
    found, _ = decode(wire, form, x.size)
    for begin in range(0, x.size, form.block):
        block, values = x[begin : begin + form.block], found[begin : begin + form.block]
        if not np.isfinite(block).all():
            # What is no number never turns into one.
            assert np.isnan(values).all()
            continue
        assert np.isfinite(values).all()
        error = np.abs(values.astype(np.float64) - block)
        assert (error <= bound(block.astype(np.float64), form, case.rounding)).all()
        # The step that the core tells is worth something too.
        largest = step * (0.5 if case.rounding == "nearest" else 1) * (1 + 1e-4)
        assert (error <= largest + _slack(block, form)).all()


# By codec and rounding: the bound in parts of the number, and in parts of the scale.
BOUNDS = {
    "int8": {"nearest": (0, 1 / 2), "stochastic": (0, 1)},
    "int8_minmax": {"nearest": (0, 1 / 2), "stochastic": (0, 1)},
    "int4": {"nearest": (0, 1 / 2), "stochastic": (0, 1)},
    "int4_minmax": {"nearest": (0, 1 / 2), "stochastic": (0, 1)},
    "fp8_e4m3": {"nearest": (2**-4, 2**-10), "stochastic": (2**-3, 2**-9)},
    "fp8_e5m2": {"nearest": (2**-3, 2**-17), "stochastic": (2**-2, 2**-16)},
    "fp4_e3m0": {"nearest": (1 / 3, 1 / 8), "stochastic": (1, 1 / 4)},
    "fp4_e2m1": {"nearest": (1 / 5, 1 / 4), "stochastic": (1 / 2, 1 / 2)},
}


def bound(x: Array, form: Format, rounding: str) -> Array:
    """From the numbers alone, not from the scale that was sent; f64."""
    relative, absolute = BOUNDS[form.name][rounding]
    width = np.abs(x).max()
    if form.codec.minmax:
        width = x.max() - x.min()
        if form.scale == "bf16":  # the least number was rounded down
            width += np.abs(x.min()) * 2.0**-7 + 2.0**-133
    s = width / form.codec.top
    if form.scale == "bf16":
        s = s * (1 + 2.0**-7) + 2.0**-133 * (width > 0)
    else:
        s = s * (1 + 2.0**-22) + 2.0**-149 * (width > 0)
    return np.maximum(np.abs(x) * relative, s * absolute) * (1 + 1e-4) + _slack(x, form)


def _slack(x: Array, form: Format) -> Array:
    """The results are f32, and at the end of its range codes and bf16 scales can't go on."""
    slack = np.full(x.size, 2.0**-149)
    most = float(twin.MAX)
    if form.codec.minmax:
        slack += np.abs(x.astype(np.float64)).max() * 2.0**-23
        most = float(twin.BF16_MAX) if form.scale == "bf16" else most
    else:
        most = float(twin.scale_max(form.codec.top, form.scale)) * form.codec.top
    return slack + np.maximum(0, np.abs(x.astype(np.float64)) - most)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", CODECS)
def test_a_block_of_zeros_is_nothing_but_zeros(name: str, rounding: str) -> None:
    for scale in SCALES:
        form = Format(name, 32, scale)
        wire, step = encode(np.array([0.0, -0.0] * 20, np.float32), form, rounding, 1)
        assert not wire.any()
        assert step == 0
        assert not decode(wire, form, 40)[0].view(np.uint32).any()


@pytest.mark.parametrize("name", CODECS)
def test_the_largest_magnitude_survives(name: str) -> None:
    rng = np.random.default_rng(3)
    form = Format(name, 64)
    for magnitude in (1e-30, 1.0, 3e38):
        x = (rng.uniform(-1, 1, 640) * magnitude).astype(np.float32)
        found, _ = decode(encode(x, form)[0], form, x.size)
        for at in range(0, x.size, 64):
            largest = at + np.abs(x[at : at + 64]).argmax()
            assert found[largest] == pytest.approx(x[largest], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp8_e4m3", ml_dtypes.float8_e4m3fn), ("fp8_e5m2", ml_dtypes.float8_e5m2)],
)
def test_fp8_is_what_others_take_for_it(name: str, dtype: Any) -> None:
    form = Format(name, 1024)
    top = np.float32(form.codec.top)
    codes = np.arange(256, dtype=np.uint8)
    values = codes.view(dtype).astype(np.float32)
    values = values[np.isfinite(values)]
    between = (values[:, None] + values[None, :]).ravel() / np.float32(2)
    rng = np.random.default_rng(0)
    between = np.append(between, rng.standard_normal(5000).astype(np.float32) * top / 4)
    between = np.clip(between, -top, top)
    for begin in range(0, between.size, 1023):
        x = np.append(top, between[begin : begin + 1023]).astype(np.float32)  # the scale is 1
        wire, _ = encode(x, form)
        expected = x.astype(dtype).view(np.uint8)
        np.testing.assert_array_equal(wire[4 : 4 + x.size], np.where(expected == 0x80, 0, expected))


@pytest.mark.parametrize(
    ("name", "values"),
    [("fp4_e3m0", [0, 0.25, 0.5, 1, 2, 4, 8, 16]), ("fp4_e2m1", [0, 0.5, 1, 1.5, 2, 3, 4, 6])],
)
def test_fp4_has_these_values_and_ties_to_even(name: str, values: list[float]) -> None:
    form = Format(name, 32)
    all_of = np.array(values, np.float32)
    middles = (all_of[1:] + all_of[:-1]) / 2
    x = np.concatenate([all_of, -all_of, middles, -middles])
    wire, _ = encode(x, form)
    codes = np.stack([wire[4:] & 15, wire[4:] >> 4], axis=1).ravel()[: x.size].tolist()
    even = [i + i % 2 for i in range(7)]
    signed = [0] + [8 + i for i in range(1, 8)]
    assert codes == [*range(8), *signed, *even, *[i + 8 * (i > 0) for i in even]]
    np.testing.assert_array_equal(decode(wire, form, 16)[0], x[:16])


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_integers_round_to_the_even_one(name: str) -> None:
    form, top = Format(name, 1024), CODECS[name].top
    x = np.append(np.float32(top), np.arange(-2 * top, 2 * top + 1, dtype=np.float32) / 2)
    found, step = decode(encode(x, form)[0], form, x.size)
    np.testing.assert_array_equal(found, np.rint(x))
    assert step == 1


@pytest.mark.parametrize("name", CODECS)
def test_stochastic_rounding_is_right_on_average(name: str) -> None:
    seeds = 10_000
    x = np.random.default_rng(11).standard_normal(32).astype(np.float32)
    form = Format(name, 32)
    results = np.empty((seeds, x.size), np.float32)
    for seed in range(seeds):
        results[seed] = rounded(x, form, "stochastic", seed * 7919)[0]
    mean, deviation = results.mean(axis=0, dtype=np.float64), results.std(axis=0, dtype=np.float64)
    gap = results.max(axis=0).astype(np.float64) - results.min(axis=0)
    # A neighbour so unlikely that it never came counts for less than one draw in all.
    allowed = 4 * np.maximum(deviation / np.sqrt(seeds), np.abs(x) / seeds) + 1e-6
    assert (np.abs(mean - x) <= allowed).all()
    step = bound(x.astype(np.float64), form, "stochastic")
    assert (gap <= 2 * step).all()
    assert (gap > 0).sum() > x.size / 2


def test_draws_are_even_and_differ_by_seed_block_and_place() -> None:
    form = Format("int8", 256)
    x = np.full(256 * 64, 0.5, np.float32)
    x[::256] = 127
    at = [encode(x, form, "stochastic", seed)[0].reshape(64, -1)[:, 4:] for seed in (1, 2)]
    for one in at:
        assert abs(one[:, 1:].mean() - 0.5) < 0.02
        assert len({row.tobytes() for row in one}) == 64
        assert abs((one[:, 1:-1] ^ one[:, 2:]).mean() - 0.5) < 0.02
    assert abs((at[0] ^ at[1])[:, 1:].mean() - 0.5) < 0.02
    later, _ = encode(x[256 * 5 :], form, "stochastic", 1, first_block=5)
    np.testing.assert_array_equal(later.reshape(59, -1)[:, 4:], at[0][5:])


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_half_is_widened_and_comes_back(dtype: str) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(twin.dtype_of(dtype))
    wide = np.empty(x.size, np.float32)
    _core.convert(read_only(x), written_only(wide))
    with np.errstate(invalid="ignore"):
        number = ~np.isnan(x)
    same_bits(wide[number], x[number].astype(np.float32))
    assert np.isnan(wide[~number]).all()
    back = np.empty_like(x)
    _core.convert(read_only(wide), written_only(back))
    same_bits(back[number], x[number])
    assert np.isnan(back[~number]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrowing_rounds_to_the_nearest_even(dtype: str) -> None:
    bits = np.random.default_rng(5).integers(0, 1 << 32, 100_003, dtype=np.uint32)
    x = np.append(bits.view(np.float32), twin.MAX)
    x = x[~np.isnan(x)]
    found = np.empty(x.size, twin.dtype_of(dtype))
    _core.convert(read_only(x), written_only(found))
    same_bits(found, twin.narrow(x, found.dtype))
    if dtype == "f64":
        x64 = np.random.default_rng(6).standard_normal(29_001) * 2.0 ** np.linspace(
            -160, 130, 29_001
        )
        wide = np.empty(x64.size, np.float32)
        _core.convert(read_only(x64), written_only(wide))
        same_bits(wide, twin.widen(x64))


def test_what_does_not_fit_is_refused() -> None:
    form = core_format(Format("int8", 32))
    x, whole = np.zeros(33, np.float32), np.zeros(33, np.int32)
    wire = np.zeros(72, np.uint8)
    with pytest.raises(ValueError, match="take 72 u8"):
        _core.encode(read_only(x), written_only(wire[:71]), form, 0, 0)
    with pytest.raises(ValueError, match="take 72 u8"):
        _core.decode(read_only(wire[1:]), written_only(x), form)
    with pytest.raises(ValueError, match="holds i32"):
        _core.encode(read_only(whole), written_only(wire), form, 0, 0)
    with pytest.raises(ValueError, match="differ in size"):
        _core.convert(read_only(x), written_only(x[1:].copy()))
    with pytest.raises(ValueError, match="one array"):
        _core.encode(read_only([x, x]), written_only(wire), form, 0, 0)
    for codec, block, scale in [(0, 32, 0), (99, 32, 0), (1, 33, 0), (1, 2048, 0), (1, 32, 4)]:
        with pytest.raises(ValueError, match=r"."):
            _core.BlockFormat(codec, block, scale)
