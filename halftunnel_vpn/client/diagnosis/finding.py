"""One result of a diagnosis: a subject, an outcome, a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Works, but the user should know."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Could not be tried, because an earlier check failed or a privilege is missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``text`` says what was found and, unless the outcome is OK, what to do."""

    subject: str
    outcome: Outcome
    text: str


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(subject, Outcome.OK, text)


def warning(subject: str, text: str) -> Finding:
    """Return a finding that does not keep the tunnel from working."""
    return Finding(subject, Outcome.WARNING, text)


def failed(subject: str, text: str) -> Finding:
    """Return a finding that keeps the tunnel from working."""
    return Finding(subject, Outcome.FAILED, text)


def skipped(subject: str, text: str) -> Finding:
    """Return a check that was not made."""
    return Finding(subject, Outcome.SKIPPED, text)
