"""The learning curve of a run as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from agents.files import atomic_write
from agents.training.metrics import Row


def draw_curve(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw training and validation return over environment steps into a PNG file.

    Args:
        rows: of metrics.csv; the shaded band is one standard deviation over the validation episodes.
        path: the picture.
        title: above it.

    Raises:
        UserError: the disk is full or fails.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = {"train/return": "training episodes (sampled)", "validation/return": "validation (greedy)"}
    for name, label in labels.items():
        points = [(row["env_steps"], row[name]) for row in rows if name in row]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], label=label)
    band = [row for row in rows if "validation/return" in row]
    axes.fill_between(
        [row["env_steps"] for row in band],
        [row["validation/return"] - row["validation/return_std"] for row in band],
        [row["validation/return"] + row["validation/return_std"] for row in band],
        color="C1",
        alpha=0.2,
        linewidth=0,
    )
    axes.set(xlabel="environment steps", ylabel="episode return", title=title)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    atomic_write(path, content.getvalue())
