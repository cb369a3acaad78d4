"""The TOML writer, with the parser as its oracle."""

from __future__ import annotations

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.config.writing import render

PEM = "-----BEGIN CERTIFICATE-----\nAAAA+/=\n-----END CERTIFICATE-----\n"

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
SCALARS = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
DOCUMENTS = st.recursive(
    st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=4), max_size=5),
    lambda below: st.dictionaries(TEXTS, SCALARS | below, max_size=4),
    max_leaves=12,
)


def test_a_document_reads_as_a_person_would_write_it():
    text = render(
        {
            "name": "home",
            "upstream": {"urls": ("wss://a/", "wss://b/"), "tls": {"ca": PEM, "on": True}},
            "dns": {"hosts": {"a.b": ["1.2.3.4"]}},
            "empty": {},
        }
    )
    assert text == (
        'name = "home"\n\n[upstream]\nurls = ["wss://a/", "wss://b/"]\n\n[upstream.tls]\n'
        f'ca = """\n{PEM}"""\non = true\n\n[dns.hosts]\n"a.b" = ["1.2.3.4"]\n\n[empty]\n'
    )


@settings(max_examples=200)
@given(DOCUMENTS)
def test_whatever_is_written_is_read_back_the_same(document):
    assert tomli.loads(render(document)) == document
