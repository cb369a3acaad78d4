"""The entry of each command. It imports the command's module when it runs: `htvpn --help` loads none."""

from __future__ import annotations

import gc
from argparse import Namespace


def up(options: Namespace) -> int:
    if options.foreground:
        gc.disable()  # imports make next to no garbage; the event loop enables it
        from halftunnel_vpn.cli import up_foreground

        return up_foreground.run(options)
    from halftunnel_vpn.cli import up

    return up.run(options)


def down(options: Namespace) -> int:
    from halftunnel_vpn.cli import down

    return down.run(options)


def exits(options: Namespace) -> int:
    from halftunnel_vpn.cli import exit_commands

    return exit_commands.show(options)


def switch(options: Namespace) -> int:
    from halftunnel_vpn.cli import exit_commands

    return exit_commands.switch(options)


def profile_add_exit(options: Namespace) -> int:
    from halftunnel_vpn.cli import profile

    return profile.add_exit(options)


def status(options: Namespace) -> int:
    from halftunnel_vpn.cli import status

    return status.run(options)


def top(options: Namespace) -> int:
    from halftunnel_vpn.cli.top import start

    return start.run(options)


def healthcheck(options: Namespace) -> int:
    from halftunnel_vpn.cli import healthcheck

    return healthcheck.run(options)


def proxy(options: Namespace) -> int:
    gc.disable()  # as for `up`
    from halftunnel_vpn.cli import proxy

    return proxy.run(options)


def help(options: Namespace) -> int:
    from halftunnel_vpn.cli import about

    return about.explain(options)


def version(options: Namespace) -> int:
    from halftunnel_vpn.cli import about

    return about.version(options)


def config_check(options: Namespace) -> int:
    from halftunnel_vpn.cli import config_files

    return config_files.check(options)


def reconnect(options: Namespace) -> int:
    from halftunnel_vpn.cli import daemon_commands

    return daemon_commands.reconnect(options)


def reload(options: Namespace) -> int:
    from halftunnel_vpn.cli import daemon_commands

    return daemon_commands.reload(options)


def portal(options: Namespace) -> int:
    from halftunnel_vpn.cli import daemon_commands

    return daemon_commands.portal(options)


def programs(options: Namespace) -> int:
    from halftunnel_vpn.cli import programs

    return programs.run(options)


def repair(options: Namespace) -> int:
    from halftunnel_vpn.cli import daemon_commands

    return daemon_commands.repair(options)


def check(options: Namespace) -> int:
    from halftunnel_vpn.cli import check

    return check.run(options)


def bugreport(options: Namespace) -> int:
    from halftunnel_vpn.cli import bugreport

    return bugreport.run(options)


def logs(options: Namespace) -> int:
    from halftunnel_vpn.cli import logs

    return logs.run(options)


def profile_list(options: Namespace) -> int:
    from halftunnel_vpn.cli import profile

    return profile.show(options)


def profile_add(options: Namespace) -> int:
    from halftunnel_vpn.cli import profile

    return profile.add(options)


def profile_remove(options: Namespace) -> int:
    from halftunnel_vpn.cli import profile

    return profile.remove(options)


def profile_use(options: Namespace) -> int:
    from halftunnel_vpn.cli import profile

    return profile.use(options)


def audit(options: Namespace) -> int:
    if options.files == ["record"]:
        from halftunnel_vpn.cli import audit_record

        return audit_record.run(options)
    from halftunnel_vpn.cli import audit

    return audit.run(options)


def demo(options: Namespace) -> int:
    from halftunnel_vpn.cli import demo

    return demo.run(options)


def server_init(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_init

    return server_init.run(options)


def add_client(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_clients

    return server_clients.add(options)


def invite(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_invite

    return server_invite.run(options)


def join(options: Namespace) -> int:
    from halftunnel_vpn.cli import invited

    return invited.run(options)


def exit_status(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_control

    return server_control.status(options)


def exit_clients(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_control

    return server_control.clients(options)


def exit_sessions(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_control

    return server_control.sessions(options)


def exit_web(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_web

    return server_web.run(options)


def exit_client(options: Namespace) -> int:
    if options.action == "rotate-key":
        from halftunnel_vpn.cli import server_clients

        return server_clients.rotate_key(options)
    from halftunnel_vpn.cli import server_control

    return server_control.client(options)


def remove_client(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_clients

    return server_clients.remove(options)


def server_check(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_check

    return server_check.run(options)


def server_certificate(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_certificate

    return server_certificate.install(options)


def proxy_config(options: Namespace) -> int:
    from halftunnel_vpn.cli import server_proxy_config

    return server_proxy_config.run(options)


def server_run(options: Namespace) -> int:
    gc.disable()  # as for `up`
    from halftunnel_vpn.cli import server_run

    return server_run.run(options)


def install(options: Namespace) -> int:
    from halftunnel_vpn.cli import install, install_proxy

    return install_proxy.install(options) if options.role == "proxy" else install.install(options)


def uninstall(options: Namespace) -> int:
    from halftunnel_vpn.cli import install, install_proxy

    return install_proxy.uninstall() if install_proxy.is_meant() else install.uninstall(options)


def config_example(options: Namespace) -> int:
    from halftunnel_vpn.cli import config_files

    return config_files.example(options)


def config_schema(options: Namespace) -> int:
    from halftunnel_vpn.cli import config_files

    return config_files.schema(options)


def completion(options: Namespace) -> int:
    from halftunnel_vpn.cli import completion

    return completion.script(options)


def complete(options: Namespace) -> int:
    from halftunnel_vpn.cli import completion

    return completion.complete(options)
