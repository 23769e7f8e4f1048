"""From pytest-benchmark's measurements to the tables in tests/benchmarks/results, and to a report of a sitting.

``updates.csv``, ``flops.csv`` and ``members.csv`` keep every sitting; the others keep, for every benchmark and
hardware, the latest row.
"""

import csv
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.machine import hardware

Row = dict[str, Any]
Tables = dict[str, list[Row]]

RESULTS = Path(__file__).resolve().parent / "results"
TIMES = ("ms_min", "ms_median", "ms_max")
SITTING = ("date", "commit", "hardware", "device")
SHAPE = ("size", "observation", "batch", "length", "dtype")
APPENDED = {
    "updates": (*SITTING, "code", *SHAPE, *TIMES),
    "flops": (*SITTING, *SHAPE, "gflop", "gflop_per_s", "matmul_gflop_per_s", "share"),
    "members": (*SITTING, *SHAPE, "members", *TIMES, "times_one_member"),
}
OTHERS = ("benchmark", "median_ms", "min_ms", "max_ms", "rounds", "extra", "hardware", "software", "date", "commit")


def tables(benchmarks: Sequence[Row], date: str, commit: str) -> Tables:
    """Return the rows of one sitting, by table.

    Args:
        benchmarks: as pytest-benchmark's JSON has them, times in seconds.
        date: UTC, to the minute; when the sitting began.
        commit: what was measured.
    """
    when = {"date": date, "commit": commit}
    result: Tables = {}
    for benchmark in benchmarks:
        extra = benchmark["extra_info"]
        if "update" in extra:
            result.setdefault("updates", []).extend(when | row for row in _updates(benchmark))
        elif "members" in extra:
            result.setdefault("members", []).append(when | _member(benchmark))
        else:
            name = Path(benchmark["fullname"].split("::")[0]).stem.removeprefix("test_")
            result.setdefault(name, []).append(when | _other(benchmark))
    flops = [when | row for row in _flops(benchmarks)]
    if flops:
        result["flops"] = flops
    _divide_by_one_member(result.get("members", []))
    return result


def write(new: Tables, folder: Path) -> None:
    """Add a sitting's rows to the tables in ``folder``."""
    folder.mkdir(exist_ok=True)
    for name, rows in new.items():
        path, columns = folder / f"{name}.csv", APPENDED.get(name, OTHERS)
        kept: list[Row] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = list(csv.DictReader(file))
        if name not in APPENDED:
            measured = {(row["benchmark"], row["hardware"]) for row in rows}
            kept = [row for row in kept if (row["benchmark"], row["hardware"]) not in measured]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept + rows)


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _milliseconds(seconds: Iterable[float]) -> Row:
    values = [1e3 * value for value in seconds]
    return dict(zip(TIMES, (_number(f(values)) for f in (min, statistics.median, max)), strict=True))


def _updates(benchmark: Row) -> list[Row]:
    """Rows of our update and of the one that was timed in turns with it."""
    about = dict(benchmark["extra_info"]["update"])
    about["hardware"] = hardware(about["device"], about.pop("threads", None))
    rows = [about | _milliseconds(benchmark["stats"]["data"])]
    if "beside" in benchmark["extra_info"]:
        beside = benchmark["extra_info"]["beside"]
        rows.append(about | {"code": beside["code"]} | _milliseconds(beside["seconds"]))
    return rows


def _member(benchmark: Row) -> Row:
    about = {name: value for name, value in benchmark["extra_info"]["members"].items() if name != "code"}
    return (
        about
        | {"hardware": hardware(about["device"], about.pop("threads"))}
        | _milliseconds(benchmark["stats"]["data"])
    )


def _divide_by_one_member(rows: list[Row]) -> None:
    one = {tuple(row[name] for name in SHAPE): float(row["ms_median"]) for row in rows if row["members"] == 1}
    for row in rows:
        alone = one.get(tuple(row[name] for name in SHAPE))
        row["times_one_member"] = f"{float(row['ms_median']) / alone:.3f}" if alone else ""


def _flops(benchmarks: Sequence[Row]) -> list[Row]:
    """Rates of the updates against those of matrix products of the same sitting, threads and dtype."""
    rates = {
        (extra["device"], extra["threads"], extra["dtype"]): extra["GFLOP/s"]
        for extra in (benchmark["extra_info"] for benchmark in benchmarks)
        if "GFLOP/s" in extra
    }
    rows = []
    for benchmark in benchmarks:
        about = benchmark["extra_info"].get("update", {})
        matmul = rates.get((about.get("device"), about.get("threads"), about.get("dtype")))
        if matmul is None or about["code"] != "dreamtune":
            continue
        gflop = benchmark["extra_info"]["GFLOP"]
        rate = gflop / benchmark["stats"]["median"]
        row = {name: about[name] for name in ("device", *SHAPE)}
        row["hardware"] = hardware(about["device"], about["threads"])
        numbers = {"gflop": gflop, "gflop_per_s": rate, "matmul_gflop_per_s": matmul, "share": rate / matmul}
        rows.append(row | {name: f"{value:.4g}" for name, value in numbers.items()})
    return rows


def _other(benchmark: Row) -> Row:
    stats, extra = benchmark["stats"], dict(benchmark["extra_info"])
    place = hardware(extra.pop("device", "cpu"), extra.pop("threads", None))
    numbers = {f"{name}_ms": f"{1e3 * stats[name]:.6g}" for name in ("median", "min", "max")}
    told = "; ".join(f"{key}={_number(value)}" for key, value in sorted(extra.items()))
    software = f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    return {
        "benchmark": benchmark["name"],
        **numbers,
        "rounds": stats["rounds"],
        "extra": told,
        "hardware": place,
        "software": software,
    }
