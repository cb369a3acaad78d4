"""The policy of the kill switch on disk. The early boot, the next start and a repair read it.

It is written before the policy is enforced, and removed after the policy is lifted.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.record.journal import write_atomically
from halftunnel_vpn.storage.atomic_file import remove_file

FILE: Final = "protection.json"
_FORMAT: Final = 1
_SETTING: Final = "src_valid_mark"


class PolicyFile:
    """The file in ``state_dir``, with the value of net.ipv4.conf.all.src_valid_mark from before it."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE

    def load(self) -> TrafficPolicy | None:
        """Return the policy; None if there is none. Raises HostError if the file is corrupt."""
        try:
            data = json.loads(self.path.read_bytes())
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']}")
            return TrafficPolicy.from_dict(data["policy"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                f"The file {self.path} cannot be read ({error}): see that nothing should be blocked on this "
                "host, then run `htvpn repair --lift`."
            ) from error

    def save(self, policy: TrafficPolicy, *, original: str) -> None:
        """Write the policy atomically, without device and openings. ``original`` is the setting's value.

        Raises HostError if the state directory cannot be written. An unchanged policy is not written again.
        """
        alone = dataclasses.replace(policy, tunnel=None, openings=())
        content = {"format": _FORMAT, "policy": alone.as_dict(), _SETTING: original}
        write_atomically(self.path, json.dumps(content, indent=1))

    def original_setting(self) -> str | None:
        """Return the setting's value from before the policy; None if the file does not contain it."""
        try:
            return str(json.loads(self.path.read_bytes())[_SETTING])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def remove(self) -> None:
        """Remove the file if it exists. Raises HostError."""
        try:
            remove_file(self.path)
        except OSError as error:
            raise HostError(f"The file {self.path} cannot be removed ({error.strerror}).") from error
