"""Measurements become the tables that are kept: columns, ratios, and which rows stay."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.report import compare, report
from tests.benchmarks.tables import tables, write

ABOUT = {"code": "dreamtune", "device": "cpu", "size": "1m", "observation": "state", "batch": 16, "length": 64}


def measured(name: str, seconds: list[float], file: str = "test_updates", **extra: Any) -> dict[str, Any]:
    """One benchmark as pytest-benchmark's JSON has it."""
    ordered = sorted(seconds)
    stats = {"data": seconds, "median": ordered[len(ordered) // 2], "min": ordered[0], "max": ordered[-1]}
    return {
        "name": name,
        "fullname": f"tests/benchmarks/{file}.py::{name}",
        "stats": stats | {"rounds": len(seconds)},
        "extra_info": extra,
    }


def update(seconds: list[float], dtype: str = "float32", **extra: Any) -> dict[str, Any]:
    return measured("test_update", seconds, update=ABOUT | {"dtype": dtype, "threads": 2}, GFLOP=28.0, **extra)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_updates_of_both_codes_are_appended(tmp_path: Path) -> None:
    beside = {"code": "torchrl", "seconds": [0.9, 0.8, 1.0]}
    first = tables([update([0.3, 0.5, 0.4], beside=beside)], "2026-01-02 03:04", "abc")
    write(first, tmp_path)
    write(tables([update([0.25])], "2026-01-03 05:06", "def"), tmp_path)
    columns = "date,commit,hardware,device,code,size,observation,batch,length,dtype,ms_min,ms_median,ms_max"
    assert (tmp_path / "updates.csv").read_text().splitlines()[0] == columns
    ours, theirs, later = rows(tmp_path / "updates.csv")
    assert [ours[name] for name in ("ms_min", "ms_median", "ms_max")] == ["300", "400", "500"]
    assert [theirs[name] for name in ("code", "ms_min", "ms_median", "ms_max")] == ["torchrl", "800", "900", "1000"]
    assert (ours["date"], theirs["date"], later["date"]) == (*["2026-01-02 03:04"] * 2, "2026-01-03 05:06")
    assert ours["hardware"].endswith("2 threads") and (later["commit"], later["ms_median"]) == ("def", "250")


def test_the_rate_is_compared_with_products_of_the_same_threads_and_type() -> None:
    products = [
        measured("test_matmul", [1.0], "test_matmul", device="cpu", threads=threads, dtype=dtype, **{"GFLOP/s": rate})
        for threads, dtype, rate in ((1, "float32", 50.0), (2, "float32", 112.0), (2, "bfloat16", 300.0))
    ]
    new = tables([*products, update([0.5])], "", "")
    (row,) = new["flops"]
    assert (row["gflop_per_s"], row["matmul_gflop_per_s"], row["share"]) == ("56", "112", "0.5")  # 28 GFLOP in 0.5 s
    assert [row["benchmark"] for row in new["matmul"]] == ["test_matmul"] * 3
    assert "flops" not in tables([update([0.5])], "", "")


def test_a_population_is_compared_with_one_member() -> None:
    population = [
        measured(
            "test_members", [seconds], "test_members", members=ABOUT | {"dtype": "float32", "threads": 1, "members": m}
        )
        for m, seconds in ((1, 0.2), (4, 0.5))
    ]
    assert [row["times_one_member"] for row in tables(population, "", "")["members"]] == ["1.000", "2.500"]


def test_other_tables_keep_the_latest_row_of_a_benchmark_and_hardware(tmp_path: Path) -> None:
    write(tables([measured("a", [0.001], "test_acting"), measured("b", [0.002], "test_acting")], "1", ""), tmp_path)
    path = tmp_path / "acting.csv"
    path.write_text(path.read_text() + "a,9,9,9,1,,another machine,,0,\n")
    write(tables([measured("a", [0.003], "test_acting", rate=1234567.0)], "2", ""), tmp_path)
    kept = {(row["benchmark"], row["date"]): (row["median_ms"], row["extra"]) for row in rows(path)}
    assert kept == {("b", "1"): ("2", ""), ("a", "0"): ("9", ""), ("a", "2"): ("3", "rate=1234567")}


def test_report_ends_with_the_ratios() -> None:
    beside = {"code": "torchrl", "seconds": [0.8, 0.5, 0.9]}
    new = tables([update([0.4], beside=beside), update([0.3], "bfloat16")], "", "")
    lines = list(report(new))
    assert lines[-2].endswith("dreamtune / torchrl = 0.500 (minima 0.800)")
    assert lines[-1].endswith("bfloat16 / float32 = 0.750 (minima 0.750)")
    assert any(line.split()[:2] == ["dreamtune", "1m"] for line in lines)


@pytest.mark.parametrize("field", ["size", "batch", "dtype", "hardware"])
def test_only_updates_of_one_kind_are_compared(field: str) -> None:
    beside = {"code": "torchrl", "seconds": [0.8]}
    ours, theirs = tables([update([0.4], beside=beside)], "", "")["updates"]
    assert list(compare([ours, theirs])) and not list(compare([ours, theirs | {field: "other"}]))
