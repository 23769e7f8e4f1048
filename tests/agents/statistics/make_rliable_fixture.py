"""Writes fixtures/rliable.json: scores, and what rliable says of them. It is no test, and rliable no dependency:

python -m venv V && V/bin/pip install rliable==1.2.0 'pandas<3' && V/bin/python make_rliable_fixture.py
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

generator = np.random.default_rng(20210830)
level, spread = generator.uniform(0.2, 1.2, size=8), generator.uniform(0.05, 0.3, size=8)
# Rounded to a tenth, so that there are ties between and within agents; the first task is the same for both.
x = np.round(level + spread * generator.normal(size=(5, 8)), 1)
y = np.round(level - 0.1 + spread * generator.normal(size=(4, 8)), 1)
x[:4, 0] = y[:, 0]
thresholds = np.round(np.linspace(0.0, 1.5, 16), 1) + 0.05
np.random.seed(0)  # what rliable draws from


def aggregates(scores: np.ndarray) -> np.ndarray:
    return np.array(
        [
            metrics.aggregate_mean(scores),
            metrics.aggregate_median(scores),
            metrics.aggregate_iqm(scores),
            metrics.aggregate_optimality_gap(scores),
            metrics.aggregate_optimality_gap(scores, gamma=0.5),
        ]
    )


def improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([metrics.probability_of_improvement(first, second)])


points, intervals = library.get_interval_estimates({"x": x, "y": y}, aggregates, reps=50_000)
pair, pair_interval = library.get_interval_estimates({"pair": [x, y]}, improvement, reps=5_000)
content = {
    "made": f"rliable {importlib.metadata.version('rliable')}, NumPy {np.__version__}, make_rliable_fixture.py",
    "x": x.tolist(),
    "y": y.tolist(),
    "aggregates": {
        "order": ["mean", "median", "interquartile mean", "optimality gap, gamma 1", "optimality gap, gamma 0.5"],
        "point": {name: value.tolist() for name, value in points.items()},
        "interval": {name: value.tolist() for name, value in intervals.items()},
        "resamples": 50_000,
    },
    "improvement": {
        "x over y": float(pair["pair"][0]),
        "y over x": float(improvement(y, x)[0]),
        "interval": pair_interval["pair"].reshape(-1).tolist(),
        "resamples": 5_000,
    },
    "thresholds": thresholds.tolist(),
}
for name, runs in (("performance_profile", True), ("average_score_profile", False)):
    profile, profile_interval = library.create_performance_profile(
        {"x": x}, thresholds, use_score_distribution=runs, reps=20_000
    )
    content[name] = {"point": profile["x"].tolist(), "interval": profile_interval["x"].tolist(), "resamples": 20_000}
Path(__file__).with_name("fixtures").joinpath("rliable.json").write_text(json.dumps(content, indent=1) + "\n")
