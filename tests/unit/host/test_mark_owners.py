"""Whose control group is our own."""

from __future__ import annotations

import pytest

from halftunnel_vpn.host.kernel.mark_owners import SERVICE_PID, own_group

UNIT = "0::/system.slice/halftunnel.service\n"


@pytest.mark.parametrize(
    "text, environment, group",
    [
        (UNIT, {SERVICE_PID: "7"}, "system.slice/halftunnel.service"),
        ("1:cpu:/\n" + UNIT, {SERVICE_PID: "7"}, "system.slice/halftunnel.service"),
        (UNIT, {SERVICE_PID: "8"}, None),  # a child of the service's main process: a shell, for example
        (UNIT, {}, None),
        ("0::/\n", {SERVICE_PID: "7"}, None),
        ("0::/user.slice/user-0.slice/session-1.scope\n", {SERVICE_PID: "7"}, None),
        ("", {SERVICE_PID: "7"}, None),
    ],
)
def test_only_a_services_main_process_has_one_of_its_own(text, environment, group) -> None:
    assert own_group(text, environment, 7) == group
