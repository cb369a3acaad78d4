"""The operator's page of an exit in real Chromium: log in, invite, watch, limit and disable a client."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from playwright.sync_api import Page, expect

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
SECONDS = 60_000.0

expect.set_options(timeout=SECONDS)


def row(page: Page, client: str):
    return page.locator(f'#rows [role="row"][data-client="{client}"]')


def state(page: Page, client: str):
    return row(page, client).locator(".state")


def enter(page: Page, web_exit: Any, address: str = "") -> None:
    page.goto(address or web_exit.address())
    expect(page.locator("#connection")).to_have_text("Live")


def invite(page: Page, name: str) -> str:
    page.get_by_role("button", name="Invite a client").click()
    page.get_by_label("Name of the client").fill(name)
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator("#invite-code svg")).to_be_visible()
    return page.get_by_label("Link", exact=True).input_value()


def read_code(image: Path) -> str:
    argv = ["zbarimg", "-q", "--raw", str(image)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def send_through(socks: Path, count: int) -> None:
    """Send bytes through a client's SOCKS5 socket to a target of this test, which takes them all."""
    with socket.create_server(("127.0.0.1", 0)) as target, socket.socket(socket.AF_UNIX) as sender:
        sender.settimeout(60)
        target.settimeout(60)
        sender.connect(str(socks))
        sender.sendall(b"\x05\x01\x00")
        assert sender.recv(2) == b"\x05\x00"
        sender.sendall(b"\x05\x01\x00\x01\x7f\0\0\x01" + target.getsockname()[1].to_bytes(2, "big"))
        assert sender.recv(10)[:2] == b"\x05\x00"
        taken, _ = target.accept()
        with taken:
            taking = threading.Thread(target=lambda: [*iter(lambda: taken.recv(65536), b"")])
            taking.start()
            sender.sendall(bytes(count))
            sender.shutdown(socket.SHUT_WR)
            taking.join(60)
            assert not taking.is_alive()


@pytest.fixture
def start_client(tmp_path: Path) -> Iterator:
    """Starts `htvpn proxy` with a profile: a session of the real protocol, without root."""
    started: list[subprocess.Popen] = []

    def start(profile: Path) -> None:
        argv = [sys.executable, "-m", "halftunnel_vpn.cli", "proxy", str(profile)]
        argv += ["--socks", f"{tmp_path}/socks"]
        with (tmp_path / "client.log").open("w") as log:
            started.append(subprocess.Popen(argv, stdout=log, stderr=log))

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_a_client_from_its_invitation_to_its_end(web_exit, htvpn, page, start_client, tmp_path):
    printed = htvpn("server", "web", "--dir", str(web_exit.directory))
    assert f"ssh -N -L {web_exit.port}:127.0.0.1:{web_exit.port} EXIT" in printed.stderr
    enter(page, web_exit, printed.stdout.strip())
    assert "token" not in page.url, "the token stays in no history"
    link = invite(page, "laptop")
    assert link.startswith("htvpn://")
    page.locator("#invite-code").screenshot(path=tmp_path / "code.png")
    assert read_code(tmp_path / "code.png") == link
    joined = htvpn("join", "-", "--dir", str(tmp_path / "p"), stdin=link + "\n")
    assert joined.returncode == 0, joined.stderr
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_label("Link", exact=True)).to_have_value("")
    expect(state(page, "laptop")).to_have_text("offline")

    start_client(tmp_path / "p" / "laptop.toml")
    expect(state(page, "laptop")).to_have_text("online")
    send_through(tmp_path / "socks", 5_000_000)
    expect(row(page, "laptop").get_by_role("cell").nth(6)).to_contain_text("5.0 MB")
    # A press of Enter on the name, as by keyboard.
    row(page, "laptop").get_by_role("button", name="laptop").press("Enter")
    dialog = page.locator("#client-dialog")
    expect(dialog.locator(".graph svg")).to_be_visible()
    dialog.get_by_label(re.compile("^Rate of each")).fill("20mbit")
    dialog.get_by_label(re.compile("^Quota")).fill("100 potatoes")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("#terms-problem")).to_contain_text('must be an amount like "100GB/month"')
    dialog.get_by_label(re.compile("^Quota")).fill("100GB/month")
    dialog.get_by_label(re.compile("^Last day")).fill("2999-12-31")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("#terms-saved")).to_have_text("The terms are saved.")
    expect(row(page, "laptop")).to_contain_text("until 2999-12-31, 100.0 GB a month, 20.0 Mbit/s")
    entry = (web_exit.directory / "clients" / "laptop.toml").read_text()
    assert 'quota = "100GB/month"' in entry and 'rate = "20mbit"' in entry

    dialog.get_by_role("button", name="Disable").click()
    confirm = page.locator("#confirm-dialog")
    confirm.get_by_role("button", name="Cancel").click()
    expect(confirm).to_be_hidden()
    expect(state(page, "laptop")).to_have_text("online")
    dialog.get_by_role("button", name="Disable").click()
    confirm.get_by_role("button", name="Disable laptop").click()
    expect(state(page, "laptop")).to_have_text("disabled")
    expect(row(page, "laptop")).to_contain_text("last seen")
    sessions = htvpn("server", "sessions", "--json", "--dir", str(web_exit.directory))
    assert '"laptop"' not in sessions.stdout, "it is offline"
    dialog.get_by_role("button", name="Enable").click()
    expect(state(page, "laptop")).to_have_text(re.compile("offline|online"))
    assert "disabled = true" not in (web_exit.directory / "clients" / "laptop.toml").read_text()

    session = web_exit.logged_in()
    history: list[int] = []
    while sum(history) * 10 < 4_000_000:  # a point comes every ten seconds, and one may come amid the bytes
        history = json.loads(web_exit.ask("GET", "/api/history?client=laptop", headers=session).body)["sent"]
        page.wait_for_timeout(200)
    assert sum(history) * 10 == pytest.approx(5_000_000, rel=0.2)
    dialog.get_by_role("button", name="Close").click()
    row(page, "laptop").get_by_role("button", name="laptop").click()
    peak = re.compile(r"sent \(solid\): .* now, [1-9][0-9.]* Mbit/s at most")
    expect(dialog.locator(".graph svg")).to_have_attribute("aria-label", peak)


def test_a_wrong_name_and_one_that_is_taken_are_refused_in_the_page(web_exit, page):
    enter(page, web_exit)
    page.get_by_role("button", name="Invite a client").click()
    for name, sentence in (("no spaces!", "must be"), ("known", "has a client known already")):
        page.get_by_label("Name of the client").fill(name)
        page.get_by_role("button", name="Make a link").click()
        expect(page.locator("#invite-problem")).to_contain_text(sentence)


def test_a_link_that_comes_after_its_dialog_was_closed_stays_nowhere_in_the_page(web_exit, page):
    enter(page, web_exit)
    held: list[Any] = []
    page.route("**/api/invitations", lambda route: held.append(route))
    page.get_by_role("button", name="Invite a client").click()
    page.get_by_label("Name of the client").fill("hasty")
    with page.expect_request("**/api/invitations"):
        page.get_by_role("button", name="Make a link").click()
    make = page.locator('#invite-form button[type="submit"]')
    expect(make).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#invite-dialog")).to_be_hidden()
    with page.expect_response("**/api/invitations") as answer:
        held[0].continue_()
    assert "htvpn://" in answer.value.text()
    expect(make).to_be_enabled()
    assert page.get_by_label("Link", exact=True).input_value() == ""
    expect(page.locator("#invite-code svg")).to_have_count(0)


def test_a_token_logs_in_once_and_logging_out_ends_the_session(web_exit, page, make_context):
    address = web_exit.address()
    page.goto(address)
    expect(page.locator("#connection")).to_have_text("Live")
    page.reload()
    expect(page.locator("#connection")).to_have_text("Live")
    (cookie,) = page.context.cookies(f"http://127.0.0.1:{web_exit.port}/api/")
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    code = page.evaluate("localStorage.getItem('htvpn-code')")

    other = make_context().new_page()
    other.goto(address)
    expect(other.locator("#login-problem")).to_contain_text("run 'htvpn server web' on the exit")
    other.get_by_label("Token").fill(web_exit.address())
    other.get_by_role("button", name="Log in").click()
    expect(other.locator("#connection")).to_have_text("Live")

    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#login")).to_be_visible()
    old = {"Cookie": f"{cookie['name']}={cookie['value']}", "X-Htvpn-Code": code}
    refused = web_exit.ask("GET", "/api/status", headers=old)
    assert refused.status == 401 and "not logged in any more" in refused.error


def serious(page: Page, *, colours_alone: bool = False) -> list[str]:
    """Return what axe-core finds that is serious or critical, of all its rules or of those about colours."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if colours_alone:
        options["runOnly"] = ["cat.color"]
    found = page.evaluate("options => axe.run(options)", options)
    assert found["passes"], "axe has looked at something"
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_every_view_is_accessible_in_light_and_dark_and_fits_a_narrow_screen(web_exit, make_context):
    page = make_context(viewport={"width": 360, "height": 640}).new_page()

    def view(name: str) -> None:
        grounds = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            # A scheme changes colours and nothing else.
            assert serious(page, colours_alone=scheme == "dark") == [], f"{name}, {scheme}"
        assert len(grounds) == 2, "the schemes differ"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.viewport_size["width"], f"{name}: {width} pixels are wide"

    page.goto(f"http://127.0.0.1:{web_exit.port}/")
    expect(page.locator("#login")).to_be_visible()
    view("login")
    enter(page, web_exit)
    expect(row(page, "known")).to_be_visible()
    expect(page.locator("#overview")).to_contain_text("Sessions")
    expect(page.locator("#all-graph svg")).to_be_visible()
    view("clients")
    page.get_by_role("button", name="Invite a client").click()
    view("invite")
    page.get_by_label("Name of the client").fill("viewed")
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator("#invite-code svg")).to_be_visible()
    view("code")
    page.get_by_role("button", name="Done").click()
    row(page, "known").get_by_role("button", name="known").click()
    expect(page.locator("#client-graph svg")).to_be_visible()
    view("client")
    page.locator("#client-switch").click()
    view("confirm")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.set_viewport_size({"width": 1200, "height": 800})
    view("wide")


def test_the_page_is_used_by_keyboard_alone(web_exit, page):
    enter(page, web_exit)
    focused = "document.activeElement.id"
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "invite":
            break
    assert page.evaluate(focused) == "invite"
    page.keyboard.press("Enter")
    expect(page.locator("#invite-name")).to_be_focused()
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#invite-copy")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#invite-dialog")).to_be_hidden()
    expect(page.locator("#invite")).to_be_focused()


def test_an_open_page_costs_the_exit_little(web_exit, page, record_property):
    enter(page, web_exit)
    began, used = time.monotonic(), web_exit.processor_time()
    page.wait_for_timeout(4000)
    share = (web_exit.processor_time() - used) / (time.monotonic() - began)
    record_property("share_of_a_core", share)
    print(f"an open page costs {share:.2%} of a core")
    assert share < 0.05


def test_rows_follow_a_client_that_is_added_and_removed_by_commands(web_exit, htvpn, page):
    enter(page, web_exit)
    session = web_exit.logged_in()

    def read_the_list_again() -> None:
        assert web_exit.ask("POST", "/api/clients/known", {}, headers=session).status == 200

    assert htvpn("server", "add-client", "passing", "--dir", str(web_exit.directory)).returncode == 0
    read_the_list_again()
    expect(row(page, "passing")).to_be_visible()
    assert htvpn("server", "remove-client", "passing", "--dir", str(web_exit.directory)).returncode == 0
    read_the_list_again()
    expect(row(page, "passing")).to_have_count(0)
