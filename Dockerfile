# The images of Half-Tunnel, with podman or docker:
#   exit    the server; no root, no capability, a read-only file system and one volume
#   client  the tunnel of a network namespace; needs NET_ADMIN and /dev/net/tun
#   lab     nginx and curl, for the front proxies, the target and the application of compose.yaml
# `make docker` builds the first two. exit and client hold Python, the program and, in the client, nft: no shell, no
# package manager. docs/DEPLOYMENT.md says how to run them.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends \
        ca-certificates gcc libc6-dev nftables python3 python3-dev python3-venv >/dev/null \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# The packages that the program needs: a layer that stays while pyproject.toml does. The program itself is a stub here.
COPY pyproject.toml README.md LICENSE ./
# Extras of the program; otel adds the export by OpenTelemetry.
ARG EXTRAS=speed
RUN mkdir halftunnel_vpn && touch halftunnel_vpn/__init__.py \
    && python3 -m venv /opt/halftunnel \
    && /opt/halftunnel/bin/pip install --quiet --disable-pip-version-check --no-cache-dir ".[${EXTRAS}]" \
    && rm -r build ./*.egg-info halftunnel_vpn
COPY scripts/bootstrap scripts/compile scripts/native.py scripts/
COPY systemd systemd
COPY configs/client.toml configs/server.toml configs/
COPY halftunnel_vpn halftunnel_vpn
# Empty, or --quick: compile without optimisation.
ARG COMPILE=
RUN scripts/compile --python /opt/halftunnel/bin/python --into /compiled/package ${COMPILE} \
    && rm -r halftunnel_vpn && mv /compiled/package/halftunnel_vpn ./ \
    && /opt/halftunnel/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
        --no-deps --force-reinstall . \
    && /opt/halftunnel/bin/pip uninstall --quiet --yes setuptools pip \
    && find /opt/halftunnel -name '*.so' -exec strip --strip-unneeded {} + \
    && /opt/halftunnel/bin/python -m compileall -q /opt/halftunnel/lib
COPY scripts/image-root scripts/
RUN for target in exit client; do \
        packages="base-files python3"; \
        [ "$target" = exit ] || packages="$packages nftables"; \
        scripts/image-root "/roots/$target" $packages \
        && mkdir -p "/roots/$target/opt" "/roots/$target/etc/ssl/certs" \
        && cp -r /opt/halftunnel "/roots/$target/opt/" \
        && ln -s /opt/halftunnel/bin/htvpn "/roots/$target/usr/bin/htvpn" \
        && cp /etc/ssl/certs/ca-certificates.crt "/roots/$target/etc/ssl/certs/" \
        && ln -s certs/ca-certificates.crt "/roots/$target/etc/ssl/cert.pem" \
        && python3 -m compileall -q "/roots/$target/usr/lib"/python3.* -s "/roots/$target" \
        && printf 'root:x:0:0:root:/:/usr/sbin/nologin\nhalftunnel:x:65532:65532::/:/usr/sbin/nologin\n' \
            >"/roots/$target/etc/passwd" \
        && printf 'root:x:0:\nhalftunnel:x:65532:\n' >"/roots/$target/etc/group" \
        && echo 'hosts: files dns' >"/roots/$target/etc/nsswitch.conf" \
        && mkdir -p -m 1777 "/roots/$target/tmp" \
        || exit 1; \
    done \
    && mkdir -p -m 700 /empty

FROM scratch AS exit
COPY --from=build /roots/exit/ /
COPY --from=build --chown=65532:65532 /empty /var/lib/halftunnel-server
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 HTVPN_METRICS_LISTEN=127.0.0.1:9100
USER 65532:65532
WORKDIR /
VOLUME ["/var/lib/halftunnel-server"]
EXPOSE 8443 8444
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["htvpn", "healthcheck", "--dir", "/var/lib/halftunnel-server"]
ENTRYPOINT ["htvpn"]
CMD ["server", "run", "--dir", "/var/lib/halftunnel-server"]

FROM scratch AS client
COPY --from=build /roots/client/ /
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 HTVPN_PROTECTION_KILL_SWITCH=on
WORKDIR /
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["htvpn", "healthcheck"]
ENTRYPOINT ["htvpn"]
CMD ["up", "--foreground"]

FROM ${BASE} AS lab
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates curl nginx-light >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/www/html
COPY configs/containers/front configs/containers/target /usr/local/bin/
STOPSIGNAL SIGQUIT
