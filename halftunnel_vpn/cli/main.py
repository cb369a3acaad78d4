"""`htvpn`: finds the command, runs it, and turns whatever goes wrong into one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not connected.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.errors import HalfTunnelError, HostError, UsageError

DONE, FAILED, WRONG_USAGE = range(3)


def entry_point() -> None:
    """The console script."""
    if os.getpid() == 1:
        from halftunnel_vpn.cli import first_process

        first_process.stay_behind()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        options = _parse(arguments)
    except UsageError as error:
        return _say(str(error), WRONG_USAGE)
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as error:
        return _say(f"{error.strerror or error}", FAILED)
    try:
        code = int(options.run(options))
        _flush()
        return code
    except UsageError as error:
        return _fail(options, error, WRONG_USAGE)
    except HalfTunnelError as error:
        return _fail(options, error, FAILED)
    except KeyboardInterrupt:
        return _say("interrupted", FAILED)
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        return _fail(options, HostError(f"{what}"), FAILED)
    except Exception as error:
        known = _known_cause(error)
        if known is not None:
            return _fail(options, known, FAILED)
        if options.debug:
            raise
        kind = type(error).__name__
        return _say(f"an unexpected error occurred ({kind}: {error}); --debug shows where", FAILED)


def _parse(arguments: Sequence[str]) -> Namespace:
    try:
        return build_parser().parse_args(arguments)
    except SystemExit:  # the help, or the version, is printed
        _flush()
        raise


def _flush() -> None:
    if sys.stdout is not None:  # it is None when whoever called us had closed it
        sys.stdout.flush()


def _nobody_reads() -> int:
    # Whoever read our output has gone. The interpreter must not complain about it once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _known_cause(error: BaseException) -> HalfTunnelError | None:
    """The first error of ours among those that a group of tasks failed with."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            known = _known_cause(member)
            if known is not None:
                return known
    return error if isinstance(error, HalfTunnelError) else None


def _fail(options: Namespace, error: HalfTunnelError, code: int) -> int:
    if options.debug:
        import traceback

        traceback.print_exc()
    return _say(str(error), code)


def _say(sentence: str, code: int) -> int:
    print(f"htvpn: {sentence}", file=sys.stderr)
    return code
