"""Engines give the same picture however it is cut, wherever it runs, and go on where memory falls short."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.inference.consistency import correct_strips
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import INPUT_BYTES, MAX_BATCH, MIN_STRIP_ROWS, BlendedTileEngine, BodyTailEngine
from gigasr.inference.row_stream import RowStream
from gigasr.inference.tiling import Tile, TilingRules
from gigasr.models.native import PromptedUpsampler
from gigasr.models.zoo import load_upsampler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> PromptedUpsampler:
    return PromptedUpsampler(load_upsampler(str(tiny_weights)))


@pytest.fixture(scope="module")
def global_model(global_weights: Path) -> PromptedUpsampler:
    return PromptedUpsampler(load_upsampler(str(global_weights)))


def smooth(height: int, width: int) -> Tensor:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.avg_pool2d(noise, 5, 1, 2, count_include_pad=False)


@torch.inference_mode()
def run(engine: BodyTailEngine | BlendedTileEngine, lr: Tensor) -> Tensor:
    return torch.cat(list(engine.strips(RowStream.from_tensor(lr), 3)), dim=2)


def failing(function: Callable[..., Tensor], calls: set[int], error: Exception) -> Callable[..., Tensor]:
    """The function, which falls short of memory at some of its calls."""
    count = 0

    def wrapped(*arguments: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count in calls:
            raise error
        return function(*arguments)

    return wrapped


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError(
        "onnxruntime: [ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 4294967296"
    ),
    MemoryError(),
]


@pytest.mark.parametrize("call", [1, 3, 5], ids=["first", "middle", "last"])
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_the_picture_is_the_same_when_memory_falls_short_in_a_strip(
    model: PromptedUpsampler, call: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    lr, engine = smooth(50, 30), model.engine("", 0, ExecutionPlan(strip=10))
    whole = run(engine, lr)
    engine.tail.networks = {CPU: failing(engine.networks[CPU].tail, {call, call + 1}, error)}
    torch.testing.assert_close(run(engine, lr), whole, atol=1e-5, rtol=0)
    assert [record.getMessage() for record in caplog.records] == [
        f"memory is short: going on with tiles of {pixels} px" for pixels in (150, 75)
    ]


@pytest.mark.parametrize("call", [1, 3, 5], ids=["first", "middle", "last"])
def test_the_picture_is_the_same_when_memory_falls_short_in_the_body(
    model: PromptedUpsampler, call: int, caplog: pytest.LogCaptureFixture
) -> None:
    lr, engine = smooth(130, 90), model.engine("", 0, ExecutionPlan(tile=64))
    whole = run(engine, lr)
    engine.body.networks = {CPU: failing(engine.networks[CPU].body, {call, call + 1}, OUT_OF_MEMORY[0])}
    torch.testing.assert_close(run(engine, lr), whole, atol=1e-5, rtol=0)
    assert "memory is short: going on with tiles of" in caplog.text


@pytest.mark.parametrize("tile", [1, 64, 96])
def test_tiles_of_any_size_give_the_picture_of_the_whole(model: PromptedUpsampler, tile: int) -> None:
    lr = smooth(121, 128)
    whole, result = (run(model.engine("a dog", 0, ExecutionPlan(tile=side)), lr) for side in (0, tile))
    torch.testing.assert_close(result, whole, atol=1e-4, rtol=0)


def test_tiles_of_the_bundled_model_give_the_picture_of_the_whole() -> None:
    lr, bundled = smooth(100, 65), PromptedUpsampler(load_upsampler())
    whole, result = (run(bundled.engine("a dog", 0, ExecutionPlan(tile=side)), lr) for side in (0, 64))
    torch.testing.assert_close(result, whole, atol=1e-4, rtol=0)


def test_other_errors_and_the_last_px_pass(model: PromptedUpsampler) -> None:
    engine = model.engine("", 0, ExecutionPlan())
    engine.tail.networks = {CPU: failing(engine.networks[CPU].tail, {1}, RuntimeError("shapes do not match"))}
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(engine, smooth(4, 4))
    engine.tail.networks = {CPU: failing(engine.networks[CPU].tail, set(range(99)), MemoryError())}
    with pytest.raises(RuntimeError, match="memory: expected room for 1 px and a halo of"):
        run(engine, smooth(4, 4))


@pytest.mark.parametrize("tile", [0, 32])
def test_two_devices_give_the_picture_of_one(model: PromptedUpsampler, tile: int) -> None:
    lr = smooth(80, 70)
    one, two = (model.engine("", 0, ExecutionPlan((CPU,) * count, tile=tile, strip=9)) for count in (1, 2))
    torch.testing.assert_close(run(two, lr), run(one, lr), atol=1e-5, rtol=0)


def test_an_error_on_one_of_two_devices_ends_the_run(model: PromptedUpsampler) -> None:
    engine = model.engine("", 0, ExecutionPlan((CPU, CPU), strip=5))
    engine.tail.networks = {CPU: failing(engine.networks[CPU].tail, {2}, RuntimeError("shapes do not match"))}
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(engine, smooth(40, 9))


def test_wide_images_are_cut_into_columns_too(model: PromptedUpsampler) -> None:
    lr, engine = smooth(20, 300), model.engine("", 0, ExecutionPlan())
    whole = run(engine, lr)
    engine.tail.pixels = 200
    assert len(list(engine.tail.tiles(RowStream.from_tensor(lr), RowStream.from_tensor(lr)))) > 20
    torch.testing.assert_close(run(engine, lr), whole, atol=1e-5, rtol=0)


def test_the_pieces_of_a_wide_image_are_low(model: PromptedUpsampler, monkeypatch: pytest.MonkeyPatch) -> None:
    lr, engine = smooth(150, 200), model.engine("", 0, ExecutionPlan())
    whole = run(engine, lr)
    monkeypatch.setattr("gigasr.inference.engine.MAX_STRIP_BYTES", 1)
    assert engine.cut_tail((150, 200), engine.tail.pixels)[0] == MIN_STRIP_ROWS
    row_bytes = 200 * (engine.networks[CPU].tiling.result_bytes + INPUT_BYTES)
    monkeypatch.setattr("gigasr.inference.engine.MAX_BAND_BYTES", 80 * row_bytes)
    engine.body.pixels = 128**2
    assert engine.body.cut((150, 200), engine.body.pixels) == (80, 128)
    torch.testing.assert_close(run(engine, lr), whole, atol=1e-5, rtol=0)


def double(x: Tensor) -> Tensor:
    """A black box of scale 2 that takes multiples of 4 from 8 px on and reaches 3 px."""
    assert min(x.shape[2:]) >= 8
    assert not any(side % 4 for side in x.shape[2:])
    return F.interpolate(F.avg_pool2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), 7, 1), scale_factor=2)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 48), (70, 33)])
def test_a_black_box_with_rules_for_its_sizes_runs_on_tiles(size: tuple[int, int]) -> None:
    rules = TilingRules(overlap=8, multiple=4, minimum=8, side=24)
    lr = smooth(*size)
    result = run(BlendedTileEngine({CPU: double}, 2, rules, ExecutionPlan()), lr)
    assert result.shape[2:] == (2 * size[0], 2 * size[1])
    if min(size) >= 8 and not any(side % 4 for side in size):
        inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
        assert (result - double(lr))[inner].abs().max() < 0.05


def test_a_black_box_goes_on_in_smaller_tiles_when_memory_falls_short() -> None:
    rules = TilingRules(overlap=8, multiple=4, minimum=8, side=48)
    lr, network = smooth(60, 100), failing(double, {2}, MemoryError())
    whole = run(BlendedTileEngine({CPU: double}, 2, rules, ExecutionPlan()), lr)
    assert (run(BlendedTileEngine({CPU: network}, 2, rules, ExecutionPlan()), lr) - whole).abs().max() < 0.1
    with pytest.raises(RuntimeError, match="memory: expected room for a tile of"):
        run(BlendedTileEngine({CPU: failing(double, set(range(99)), MemoryError())}, 2, rules, ExecutionPlan()), lr)


# tiles that run together


def counting(counts: list[int]) -> Callable[[Tensor], Tensor]:
    """The black box, which notes how many tiles it gets at a time."""

    def wrapped(x: Tensor) -> Tensor:
        counts.append(len(x))
        return double(x)

    return wrapped


def test_tiles_that_run_together_give_the_picture_of_each_alone(global_model: PromptedUpsampler) -> None:
    lr = smooth(20, 30)
    one, three = (global_model.engine("a dog", 0, ExecutionPlan(batch=batch)) for batch in (1, 3))
    assert {tile.width for tile in three.body.plan(20, 30)} == {16, 14}
    torch.testing.assert_close(run(three, lr), run(one, lr), atol=1e-5, rtol=0)


def test_tiles_of_a_row_run_together_where_they_are_of_one_size_when_padded() -> None:
    counts: list[int] = []
    rules, lr = TilingRules(overlap=8, align=8, multiple=4, minimum=8, side=24), smooth(30, 100)
    whole = run(BlendedTileEngine({CPU: double}, 2, rules, ExecutionPlan()), lr)
    engine = BlendedTileEngine({CPU: counting(counts)}, 2, rules, ExecutionPlan(batch=4))
    torch.testing.assert_close(run(engine, lr), whole, atol=1e-6, rtol=0)
    assert [tile.width for tile in engine.plan(30, 100)] == [24, 24, 24, 24, 24, 20] * 2
    assert counts == [4, 1, 1] * 2


@pytest.mark.parametrize(
    ("calls", "reductions"),
    [
        ({1}, ["batches of 2"]),
        ({2, 3}, ["batches of 2", "batches of 1"]),
        ({1, 2, 3}, ["batches of 2", "batches of 1", "tiles of 16 px"]),
    ],
)
def test_where_memory_falls_short_fewer_tiles_run_at_a_time_then_smaller_ones(
    calls: set[int], reductions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rules, lr = TilingRules(overlap=8, multiple=4, minimum=8, side=24), smooth(60, 130)
    whole = run(BlendedTileEngine({CPU: double}, 2, rules, ExecutionPlan()), lr)
    engine = BlendedTileEngine({CPU: failing(double, calls, MemoryError())}, 2, rules, ExecutionPlan(batch=4))
    assert (run(engine, lr) - whole).abs().max() < (0.1 if "tiles" in reductions[-1] else 1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        f"memory is short: going on with {each}" for each in reductions
    ]
    assert engine.batch == (2 if len(reductions) == 1 else 1)


def test_batches_on_two_devices_give_the_picture_of_one(global_model: PromptedUpsampler) -> None:
    lr = smooth(20, 90)
    one, two = (global_model.engine("", 0, ExecutionPlan((CPU,) * count, batch=count + 1)) for count in (1, 2))
    torch.testing.assert_close(run(two, lr), run(one, lr), atol=1e-5, rtol=0)


def test_a_row_that_is_shorter_than_a_batch_is_shared_by_the_devices() -> None:
    counts: list[int] = []
    rules = TilingRules(overlap=8, multiple=4, minimum=8, side=24)
    run(BlendedTileEngine({CPU: counting(counts)}, 2, rules, ExecutionPlan((CPU, CPU), batch=16)), smooth(20, 72))
    assert counts == [2, 2]


def test_by_itself_a_cpu_runs_one_tile_at_a_time_and_others_as_many_as_fit() -> None:
    meta, rules = torch.device("meta"), TilingRules(overlap=8, side=24)
    on_cpu, elsewhere = (
        BlendedTileEngine({device: double}, 2, rules, ExecutionPlan((device,))) for device in (CPU, meta)
    )
    assert (on_cpu.batch, elsewhere.batch) == (1, MAX_BATCH)
    assert elsewhere.count(Tile(0, 0, 24, 24)) > 1
    assert elsewhere.count(Tile(0, 0, 10**6, 10**6)) == 1


@pytest.mark.parametrize("weights", ["tiny_weights", "global_weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_that_an_engine_makes_stays_on_its_device(
    weights: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    meta = torch.device("meta")  # where torch checks shapes and devices as on a GPU, and computes nothing
    engine = PromptedUpsampler(load_upsampler(str(request.getfixturevalue(weights)))).engine(
        "a cat", 0, ExecutionPlan((meta,), dtype, tile=24, strip=10)
    )
    lr = RowStream.from_tensor(smooth(50, 30).to(meta))
    with torch.inference_mode():
        strips = list(correct_strips(engine.strips(lr.tee(), 3), lr, engine.scale))
    assert {(strip.device, strip.dtype) for strip in strips} == {(meta, torch.float32)}
    assert sum(strip.shape[2] for strip in strips) == 50 * engine.scale
