"""A picture of what each path shows over time, with and without the padding; needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from halftunnel_vpn.audit.observation import Observation
from halftunnel_vpn.errors import HostError, MissingExtra

STEP: Final = 0.05
"""Seconds of one bar."""

MAX_BARS: Final = 4000
"""Bars of one path; longer observations have wider ones."""


def draw(observation: Observation, file: Path) -> None:
    """Write the picture. Raises HostError when matplotlib is missing or the file cannot be written."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtra("--png needs matplotlib, which is not installed", "audit") from None
    length = observation.records[-1].at if observation.records else 0.0
    step = max(STEP, length / MAX_BARS)
    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(11, 6), layout="constrained")
    for axis, (path, title) in zip(
        axes, (("A", "path A, upstream"), ("B", "path B, downstream")), strict=True
    ):
        sent = observation.sent(path)
        count = int(length / step) + 1
        whole, real = [0.0] * count, [0.0] * count
        for record in sent:
            place = min(count - 1, int(record.at / step))
            whole[place] += record.size / 1000
            real[place] += (record.size - (record.pad or 0)) / 1000
        times = [place * step for place in range(count)]
        axis.fill_between(times, whole, step="post", color="0.75", label="what an observer sees")
        if any(record.pad for record in sent):
            axis.fill_between(
                times, real, step="post", color="tab:red", label="what it would be without padding"
            )
        axis.set_ylabel(f"kB in {step * 1000:.0f} ms")
        axis.set_title(title, loc="left")
        axis.legend(loc="upper right")
    axes[1].set_xlabel("seconds")
    try:
        figure.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise HostError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)
