"""Random convolution kernels over time (ROCKET, Dempster and others, 2020), with several channels."""

from __future__ import annotations

from typing import Final

import numpy as np

LENGTHS: Final = (7, 9, 11)
KERNELS_PER_GROUP: Final = 48
GROUPS: Final = 42
"""Random choices of length, dilation and padding; the kernels of a group share them."""


def transform(series: np.ndarray, seed: int) -> np.ndarray:
    """Return the share of positive values and the maximum of each kernel: (views, 2 x kernels).

    ``series`` is (views, channels, bins).
    """
    draw = np.random.default_rng(seed)
    views, channels, bins = series.shape
    scaled = np.log1p(series).astype(np.float32)
    scaled -= scaled.mean(axis=(0, 2), keepdims=True)
    scaled /= scaled.std(axis=(0, 2), keepdims=True) + 1e-6
    found = []
    for _ in range(GROUPS):
        length = int(draw.choice(LENGTHS))
        most = np.log2(max(1.0, (bins - 1) / (length - 1)))
        dilation = int(2 ** draw.uniform(0, most))
        reach = (length - 1) * dilation
        padding = reach // 2 if draw.random() < 0.5 else 0
        padded = np.pad(scaled, ((0, 0), (0, 0), (padding, padding)))
        out = padded.shape[2] - reach
        weights = draw.normal(size=(channels, length, KERNELS_PER_GROUP)).astype(np.float32)
        weights -= weights.mean(axis=1, keepdims=True)
        # each kernel watches some of the channels
        weights *= draw.random((channels, 1, KERNELS_PER_GROUP)) < max(0.4, 1 / channels)
        bias = draw.uniform(-1, 1, KERNELS_PER_GROUP).astype(np.float32)
        value = np.zeros((views, out, KERNELS_PER_GROUP), dtype=np.float32)
        for step in range(length):
            start = step * dilation
            value += padded[:, :, start : start + out].transpose(0, 2, 1) @ weights[:, step]
        value += bias
        found += [(value > 0).mean(axis=1), value.max(axis=1)]
    return np.concatenate(found, axis=1)
