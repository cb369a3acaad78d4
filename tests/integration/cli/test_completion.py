"""Completion in real shells: the script that htvpn prints, and what the shell then offers."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SHELLS = {
    "bash": """
eval "$(htvpn completion bash)"
COMP_WORDS=({words} '{last}') COMP_CWORD={count}
_htvpn
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": "htvpn completion fish | source; complete -C '{line}'",
}


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """A directory with `htvpn`, as an installed one is found."""
    program = tmp_path / "bin" / "htvpn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m halftunnel_vpn.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "laptop.toml").touch()
    return program.parent


def environment(bin_directory: Path) -> dict[str, str]:
    return os.environ | {"PATH": f"{bin_directory}:{os.environ['PATH']}", "HOME": str(bin_directory)}


def offered(shell: str, line: str, bin_directory: Path) -> set[str]:
    *before, last = line.split(" ")
    script = SHELLS[shell].format(line=line, words=" ".join(before), last=last, count=len(before))
    done = subprocess.run(
        [shell, "-c", script], env=environment(bin_directory), cwd=bin_directory,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "rror" not in done.stderr, done.stderr
    return {found.split("\t")[0] for found in done.stdout.splitlines()}


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_commands_options_names_and_files(shell, bin_directory, tmp_path):
    assert offered(shell, "htvpn st", bin_directory) == {"status"}
    assert {"--json", "--watch"} <= offered(shell, "htvpn status --", bin_directory)
    assert offered(shell, f"htvpn server remove-client --dir {tmp_path} ", bin_directory) == {"laptop"}
    assert offered(shell, "htvpn profile add home ht", bin_directory) == {"htvpn"}


@pytest.mark.usefixtures("uncounted")
def test_zsh_completes_a_word_on_the_line(bin_directory):
    """Its completion works only in an interactive shell, so it gets a terminal."""
    rc = bin_directory / ".zshrc"
    rc.write_text(
        "PS1='> '; unsetopt zle_bracketed_paste; autoload -Uz compinit && compinit -u\n"
        'eval "$(htvpn completion zsh)"\n'
        # What the line has become goes out as it stands.
        "show() { print -r -- \"<$BUFFER>\"; exit }; zle -N show; bindkey '^X' show\n"
        "print READY\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bin_directory)
        os.execvpe(
            "zsh",
            ["zsh", "-i"],
            environment(bin_directory) | {"TERM": "vt100", "ZDOTDIR": str(bin_directory)},
        )
    said = b""
    try:
        while b"READY" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"htvpn server cert\t--direction up\t\x18")
        while b"<" not in said.rpartition(b"READY")[2] or b">" not in said.rpartition(b"<")[2]:
            said += os.read(terminal, 4096)
    except OSError:  # zsh has ended
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert b"<htvpn server certificate --direction upstream >" in said, said


def test_after_an_unknown_command_nothing_is_printed(htvpn):
    done = htvpn("__complete", "--", "nonsense", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
