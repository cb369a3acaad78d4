"""Programs that people use, through the proxy of a user without privileges."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lab.proxy import NOBODY_ID
from lab.topology import TARGET, TARGET_ADDRESS

pytestmark = pytest.mark.root

SSH_PORT = 2222


def test_the_proxy_has_no_privilege(rig):
    status = Path(f"/proc/{rig.proxy.process.pid}/status").read_text()
    assert "\nUid:\t65534\t65534" in status
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"\n{name}:\t0000000000000000" in status


@pytest.mark.parametrize(
    "options",
    [
        "--socks5-hostname 127.0.0.1:1080",
        "--socks5-hostname localhost$HOME/socks.sock",
        "--socks4a 127.0.0.1:1080",
        "--proxy http://127.0.0.1:8080",
        "--proxy http://127.0.0.1:8080 --proxytunnel",
        "--connect-to target.test:80:127.0.0.1:8081",
    ],
)
def test_curl_downloads_whole_by_name(rig, options):
    download = f"curl -sSf {options} http://target.test/large.bin | sha256sum"
    assert rig.target.file_sha256 in rig.client(download)


def test_curl_reads_why_it_is_refused(rig):
    """The exit's reasons reach the program as SOCKS replies: 2 denied, 4 no such name, 5 refused."""
    for url, code in (("10.1.2.3", 2), ("missing.test", 4), (f"{TARGET_ADDRESS}:9", 5)):
        said = rig.client(f"curl -sS --socks5-hostname 127.0.0.1:1080 http://{url}/", check=False)
        assert f"({code})" in said, said


def test_git_clones(rig, tmp_path):
    made = tmp_path / "made"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@test", "-C", str(made)]
    made.mkdir()
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (made / "file").write_bytes(os.urandom(300_000))
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    served = rig.target.uploads.parent / "made.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(made), str(served)], check=True)
    subprocess.run(["git", "-C", str(served), "update-server-info"], check=True)
    for scheme in ("socks5h://127.0.0.1:1080", "http://127.0.0.1:8080"):
        # Without a name git resolves that of its own host, to make one up for its log.
        ident = "GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@test"
        clone = f"{ident} git -c http.proxy={scheme} clone -q http://target.test/made.git $HOME/c"
        rig.client(
            f"rm -rf $HOME/c && {clone} && git -C $HOME/c fsck --strict && cat $HOME/c/file > $HOME/file"
        )
        assert (rig.proxy.directory / "c" / "file").read_bytes() == (made / "file").read_bytes()


def test_ssh_by_a_proxy_command(rig):
    home, server = rig.proxy.directory, rig.lab.directory / "sshd"
    server.mkdir()
    for path in (server / "host", home / "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    os.chown(home / "key", NOBODY_ID, NOBODY_ID)
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = [
        shutil.which("sshd", path="/usr/sbin:/usr/bin"), "-D", "-e", "-f", "/dev/null", "-p", str(SSH_PORT),
        "-h", str(server / "host"), "-o", f"AuthorizedKeysFile={home / 'key.pub'}", "-o", "StrictModes=no",
        "-o", "UsePAM=no", "-o", "PidFile=none", "-o", f"ListenAddress={TARGET_ADDRESS}",
        "-o", "PermitRootLogin=yes",
    ]  # fmt: skip
    process = rig.lab.start(TARGET, sshd)
    rig.lab.wait_listening(TARGET, SSH_PORT)
    options = "-F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i $HOME/key"
    for command in ("nc -X 5 -x 127.0.0.1:1080 %h %p", "nc -X connect -x 127.0.0.1:8080 %h %p"):
        said = rig.client(
            f"ssh {options} -p {SSH_PORT} -o ProxyCommand='{command}' root@target.test "
            "'echo from $SSH_CONNECTION'"
        )
        assert "from 198.51.100.1 " in said  # the exit
    rig.lab.stop(process)


def test_a_headless_browser(rig):
    page = "<title>x</title><p id=t>none</p><script>document.getElementById('t').textContent = 6 * 7</script>"
    (rig.target.uploads.parent / "page.html").write_text(page)
    for proxy in ("socks5://127.0.0.1:1080", "http://127.0.0.1:8080"):
        said = rig.client(
            f"chromium --headless --no-sandbox --disable-gpu --disable-background-networking "
            f"--disable-dev-shm-usage --user-data-dir=$HOME/browser --proxy-server={proxy} "
            "--dump-dom http://target.test/page.html",
            timeout=120,
        )
        assert '<p id="t">42</p>' in said


def test_proxychains(rig):
    configuration = rig.proxy.directory / "chains.conf"
    configuration.write_text("strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 1080\n")
    said = rig.client(f"proxychains4 -q -f {configuration} curl -sSf http://target.test/small.txt | wc -c")
    assert said.strip() == "1000"


DNS_BY_SOCKS = """
import socket, sys
from dnslib import DNSRecord
control = socket.create_connection(("127.0.0.1", 1080))
control.sendall(bytes((5, 1, 0)) + bytes((5, 3, 0, 1)) + bytes(6))
answer = b""
while len(answer) < 12:
    answer += control.recv(12 - len(answer))
assert answer[3] == 0, answer
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
sock.connect((socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:], "big")))
for where in (b"\\x01" + socket.inet_aton("198.51.100.2"), b"\\x03\\x0btarget.test"):
    header = bytes(3) + where + (53).to_bytes(2, "big")
    sock.send(header + DNSRecord.question("who.test", "TXT").pack())
    data = sock.recv(4096)
    assert data.startswith(header), data
    print(DNSRecord.parse(data[len(header):]).rr[0].rdata)
"""


def test_datagrams_by_socks(rig):
    assert rig.python(DNS_BY_SOCKS).split() == ['"target"', '"target"']
