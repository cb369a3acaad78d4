"""A dataclass describes a TOML table: each field is a key with its check and its default.

A *check* takes the value that the TOML parser has found and returns the value that the program uses. If that
is not possible, it raises :class:`Rejected` with a phrase that names what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, cast, dataclass_transform

import tomli

from halftunnel_vpn.config import environment_variables
from halftunnel_vpn.errors import ConfigError

T = TypeVar("T")
Check = Callable[[object], T]

MAX_TEXT = 8 * 1024 * 1024
"""The most characters of a configuration file. Longer ones are refused unread."""

MAX_PROBLEMS = 20
"""The most problems in one report. Of all others only the number is given."""

MAX_SHOWN = 60
"""The most characters of an invalid value that a report shows."""


_SHAPES: dict[Callable[[object], object], Mapping[str, Any]] = {}


def accepts(check: Check[T], **shape: Any) -> Check[T]:
    """Return ``check`` after noting which JSON Schema describes what it takes."""
    _SHAPES[check] = shape
    return check


def shape_of(check: Callable[[object], object]) -> dict[str, Any]:
    """Return the JSON Schema of what ``check`` takes: text, unless something else was noted."""
    return dict(_SHAPES.get(check, {"type": "string"}))


class Rejected(Exception):
    """A value that is not allowed. ``allowed`` completes the sentence "must be ..."."""

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class ElementProblem(NamedTuple):
    """One bad element of an array or a free table."""

    position: str
    value: object
    allowed: str


class RejectedElements(Exception):
    """Some elements of a value are not allowed."""

    def __init__(self, elements: list[ElementProblem]) -> None:
        super().__init__(f"{len(elements)} elements")
        self.elements = elements


# --- describing a table --------------------------------------------------------------------------


def option(check: Check[T], *, default: T, secret: bool = False) -> T:
    """A key that may be absent. ``secret`` as in required()."""
    return dataclasses.field(default=default, metadata={"check": check, "secret": secret}, repr=not secret)


def required(check: Check[T], *, secret: bool = False) -> T:
    """A key that must be present. A ``secret`` value is shown neither in reports nor in ``repr``."""
    metadata = {"check": check, "secret": secret}
    return cast(T, dataclasses.field(metadata=metadata, repr=not secret))


def secret_option(check: Check[T], *, default: T) -> T:
    """A key that may be absent and whose value is never shown."""
    metadata = {"check": check, "secret": True}  # no password  # nosec B105
    return dataclasses.field(default=default, metadata=metadata, repr=False)


def entries(
    check: Check[Mapping[str, T]],
    *,
    default_factory: Callable[[], Mapping[str, T]],
    secret: bool = False,
) -> Mapping[str, T]:
    """A free table that may be absent. Its keys are chosen by the user. ``secret`` as in required()."""
    metadata = {"check": check, "secret": secret}
    return dataclasses.field(default_factory=default_factory, metadata=metadata, repr=not secret)


def section(kind: type[T]) -> T:
    """A table below this one, with keys that must be present."""
    return cast(T, dataclasses.field(metadata={"section": kind}))


def optional_section(*, default_factory: type[T]) -> T:
    """A table below this one. If absent, it has its defaults."""
    return dataclasses.field(default_factory=default_factory, metadata={"section": default_factory})


def unless(other: str, field: T) -> T:
    """Let ``field``, a table that must be present, be absent beside the array of tables ``other``."""
    described = cast(Any, field)
    return cast(T, dataclasses.field(metadata={**described.metadata, "unless": other}))


def sections(kind: type[T], *, maximum: int) -> tuple[T, ...]:
    """An array of at most ``maximum`` tables, which may be absent: ``[[name]]``."""
    return dataclasses.field(default=(), metadata={"sections": kind, "maximum": maximum})


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(option, required, secret_option, entries, section, optional_section, sections, unless),
)
def config_table(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose fields are the keys of a TOML table."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


# --- reading -------------------------------------------------------------------------------------


class Report:
    """Collects the problems found in one file; raises them together."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[str] = []

    def add(self, problem: str) -> None:
        """Add one problem: a phrase that begins with its key."""
        self._problems.append(problem)

    def refuse(self, where: str, value: object, allowed: str, *, secret: bool = False) -> None:
        """Add the problem that the value at ``where`` is not ``allowed``."""
        shown = "(not shown)" if secret else _shown(value)
        self.add(f"{where} = {shown}: must be {allowed}")

    def raise_if_any(self) -> None:
        """Raise :class:`ConfigError` if there are problems: one per line, the file's name in the first."""
        if not self._problems:
            return
        if len(self._problems) == 1:
            raise ConfigError(f"{self._source}: {self._problems[0]}")
        lines = [f"{self._source} has {len(self._problems)} problems:"]
        lines += [f"  {problem}" for problem in self._problems[:MAX_PROBLEMS]]
        if len(self._problems) > MAX_PROBLEMS:
            lines.append(f"  and {len(self._problems) - MAX_PROBLEMS} more")
        raise ConfigError("\n".join(lines))


def read_table(text: str, source: str) -> dict[str, object]:
    """Return the table of a whole file, unchecked. Raises :class:`ConfigError`."""
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{source}: longer than {MAX_TEXT} characters, so it is not read")
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError or a number that is too long: ValueError
        raise ConfigError(f"{source}: not valid TOML: {error}") from error


def parse(
    text: str,
    kind: type[T],
    *,
    source: str,
    completed: Callable[[T, Report], T] | None = None,
    also: Callable[[T], Iterator[str]] | None = None,
    variables: Mapping[str, str] | None = None,
) -> T:
    """Read a whole file as the table ``kind``.

    ``source`` names the file in messages. ``completed`` fills in what may be absent. ``also`` yields problems
    between keys and is asked only when every single key is in order. ``variables`` of the environment replace
    the keys that they name (``config/environment_variables.py``). Raises :class:`ConfigError`.
    """
    variables = variables or {}
    document = read_table(text, source)
    report = Report(source)
    for name in sorted(variables.keys() - set(environment_variables.variables(kind))):
        report.add(environment_variables.unknown(name, kind))
    result = _read(kind, document, "", report, variables)
    report.raise_if_any()
    if completed is not None:
        result = completed(result, report)
        report.raise_if_any()
    for problem in also(result) if also is not None else ():
        report.add(problem)
    report.raise_if_any()
    return result


def _read(
    kind: type[T], values: Mapping[str, object], path: str, report: Report, variables: Mapping[str, str]
) -> T:
    """Build ``kind`` from ``values`` and ``variables``; problems go to ``report`` and leave a field empty."""
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind))}
    for key in values:
        if key not in fields:
            report.add(_unknown(key, values[key], path, list(fields)))
    taken: dict[str, Any] = {}
    for name, field in fields.items():
        where, variable = _where(path, name), environment_variables.variable(path, name)
        if "sections" in field.metadata:
            taken[name] = _read_tables(field.metadata, values.get(name, []), name, report)
        elif "section" in field.metadata:
            if name not in values and values.get(field.metadata.get("unless", "")):
                taken[name] = None  # ``completed`` of parse() fills it in
                continue
            below = values.get(name, {})
            inner = f"{path}.{name}" if path else name
            if isinstance(below, dict):
                taken[name] = _read(field.metadata["section"], below, inner, report, variables)
            else:
                report.refuse(where, below, f"a table: write [{inner}] on a line of its own")
                taken[name] = None
        elif variable in variables:
            taken[name] = _checked_text(field.metadata, variables[variable], variable, report)
        elif name in values:
            taken[name] = _checked(field.metadata, values[name], where, report)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            report.add(f"{where} is missing" + (f"; set {variable}" if variables else ""))
            taken[name] = None
    # A field with a problem is None, but then the object is never returned.
    return kind(**taken)


def _read_tables(metadata: Mapping[str, Any], found: object, where: str, report: Report) -> object:
    """Read an array of tables. In messages a table has its number, from 1."""
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        report.refuse(where, "other values", f"tables: write [[{where}]] on a line of its own before each")
        return ()
    if len(found) > metadata["maximum"]:
        report.add(f"[[{where}]]: at most {metadata['maximum']} are possible, not {len(found)}")
        return ()
    return tuple(
        _read(metadata["sections"], table, f"{where}.{number}", report, {})
        for number, table in enumerate(found, 1)
    )


def _checked(metadata: Mapping[str, Any], value: object, where: str, report: Report) -> object:
    try:
        return metadata["check"](value)
    except (Rejected, RejectedElements) as rejected:
        _refuse(metadata, value, where, report, rejected)
    return None


def _checked_text(metadata: Mapping[str, Any], text: str, where: str, report: Report) -> object:
    """Check a value that is given as text, in the first of its meanings that the key allows."""
    refusal: Rejected | RejectedElements | None = None
    for value in environment_variables.readings(text):
        try:
            return metadata["check"](value)
        except Rejected as rejected:
            refusal = refusal or rejected
        except RejectedElements as rejected:  # it has the right type, so this is the intended meaning
            refusal = rejected
    assert refusal is not None  # every text has a meaning
    _refuse(metadata, text, where, report, refusal)
    return None


def _refuse(
    metadata: Mapping[str, Any],
    value: object,
    where: str,
    report: Report,
    refusal: Rejected | RejectedElements,
) -> None:
    secret = bool(metadata.get("secret"))
    if isinstance(refusal, Rejected):
        report.refuse(where, value, refusal.allowed, secret=secret)
        return
    for element in refusal.elements:
        report.refuse(f"{where}{element.position}", element.value, element.allowed, secret=secret)


def _where(path: str, key: str) -> str:
    return f"[{path}] {key}" if path else key


def _unknown(key: str, value: object, path: str, known: list[str]) -> str:
    is_table = isinstance(value, dict)
    table = f"{path}.{key}" if path else key
    named = f"[{table}]: unknown table" if is_table else f"{_where(path, key)}: unknown key"
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        near = f"{path}.{close[0]}" if path else close[0]
        return f"{named}; did you mean {f'[{near}]' if is_table else close[0]}?"
    return f"{named}; known here: {', '.join(known)}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    except ValueError:  # Python formats no integer of more than 4300 digits, but TOML can contain it as 0x...
        return "a number too long to show"
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
