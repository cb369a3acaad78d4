"""The memory of lossy paths is bounded, and entries expire."""

from __future__ import annotations

from halftunnel_vpn.session.lossy_paths import MAX_PATHS, LossyPaths


def test_a_path_is_lossy_until_its_time_is_over():
    paths = LossyPaths()
    assert paths.until("a", 1.0) == 0
    paths.add("a", 10.0)
    paths.add("a", 20.0)
    assert paths.until("a", 19.0) == 20.0 and paths.until("b", 1.0) == 0
    assert paths.until("a", 20.0) == 0


def test_the_path_that_would_be_forgotten_first_gives_way():
    paths = LossyPaths()
    paths.add("last", 5000.0)
    for number in range(2 * MAX_PATHS):
        paths.add(str(number), 1000.0 + number)
    assert paths.until("last", 0.0) == 5000.0
    kept = [number for number in range(2 * MAX_PATHS) if paths.until(str(number), 0.0)]
    assert kept == list(range(MAX_PATHS + 1, 2 * MAX_PATHS))
