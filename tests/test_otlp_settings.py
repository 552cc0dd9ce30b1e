"""How the peer is spoken to: options, variables and defaults, settled as the specification says."""

import dataclasses
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.cli import app
from blaster.engine.signals import StopSignals
from blaster.errors import UsageError
from blaster.process_title import secret_arguments, secret_variables
from blaster.transport import endpoint, headers
from blaster.transport.endpoint import Protocol
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.otlp_settings import OtlpSettings, resolve

PREFIX = "OTEL_EXPORTER_OTLP_"
SECRET = "s3cr3t-v4lue"


def settled(environ: dict[str, str] | None = None, **options: object) -> OtlpSettings:
    """The settings of these options; the variables are written without their common prefix."""
    variables = {PREFIX + name: value for name, value in (environ or {}).items()}
    return resolve(dataclasses.replace(OtlpOptions(environ=variables), **options))  # type: ignore[arg-type]


# Option, variables → host, port, path, tls; the table of the specification's exporter page first.
ENDPOINTS: list[tuple[Protocol, str | None, dict[str, str], tuple[str, int, str, bool]]] = [
    ("grpc", None, {}, ("localhost", 4317, "", False)),
    ("http", None, {}, ("localhost", 4318, "/v1/traces", False)),
    ("http", None, {"ENDPOINT": "http://c:4318"}, ("c", 4318, "/v1/traces", False)),
    ("http", None, {"ENDPOINT": "http://c:4318/"}, ("c", 4318, "/v1/traces", False)),
    ("http", None, {"ENDPOINT": "http://c:4318/my/base"}, ("c", 4318, "/my/base/v1/traces", False)),
    ("http", None, {"ENDPOINT": "http://c:4318/my/"}, ("c", 4318, "/my/v1/traces", False)),
    ("http", None, {"TRACES_ENDPOINT": "http://c:1/own"}, ("c", 1, "/own", False)),
    ("http", None, {"TRACES_ENDPOINT": "http://c:1"}, ("c", 1, "/", False)),
    (
        "http",
        None,
        {"TRACES_ENDPOINT": "http://t:1/x/", "ENDPOINT": "http://c:2"},
        ("t", 1, "/x/", False),
    ),
    ("grpc", None, {"TRACES_ENDPOINT": "http://t:1", "ENDPOINT": "no"}, ("t", 1, "", False)),
    ("grpc", "http://o:3", {"TRACES_ENDPOINT": "http://t:1"}, ("o", 3, "", False)),
    ("http", "http://o:3", {}, ("o", 3, "/v1/traces", False)),
    ("http", "http://o:3/", {}, ("o", 3, "/v1/traces", False)),
    ("http", "http://o:3/own", {}, ("o", 3, "/own", False)),
    ("grpc", None, {"ENDPOINT": ""}, ("localhost", 4317, "", False)),
    ("grpc", "http://h", {}, ("h", 4317, "", False)),
    ("grpc", "https://h", {}, ("h", 443, "", True)),
    ("http", "http://h", {}, ("h", 80, "/v1/traces", False)),
    ("http", "https://h", {}, ("h", 443, "/v1/traces", True)),
    ("grpc", "h:5", {}, ("h", 5, "", True)),
    ("grpc", "HTTPS://[::1]:5", {}, ("::1", 5, "", True)),
]


@pytest.mark.parametrize(("protocol", "option", "environ", "found"), ENDPOINTS)
def test_endpoints(
    protocol: Protocol,
    option: str | None,
    environ: dict[str, str],
    found: tuple[str, int, str, bool],
) -> None:
    """Option, then TRACES_ENDPOINT, then ENDPOINT, then the default; paths as each of them says."""
    variables = {PREFIX + name: value for name, value in environ.items()}
    where = endpoint.resolve(option, variables, protocol)
    assert (where.host, where.port, where.path, where.tls) == found


@pytest.mark.parametrize(
    ("options", "environ", "tls"),
    [
        ({"endpoint": "h:1"}, {}, True),
        ({"endpoint": "h:1", "insecure": True}, {}, False),
        ({"endpoint": "h:1"}, {"INSECURE": "true"}, False),
        ({"endpoint": "h:1"}, {"INSECURE": "TRUE", "TRACES_INSECURE": "false"}, True),
        ({"endpoint": "https://h:1"}, {"INSECURE": "true"}, True),
        ({"endpoint": "http://h:1"}, {"INSECURE": "false"}, False),
        ({}, {"INSECURE": "true"}, False),
    ],
)
def test_the_scheme_wins_over_insecure(
    options: dict[str, object], environ: dict[str, str], tls: bool
) -> None:
    """INSECURE decides only where the endpoint has no scheme."""
    assert (settled(environ, **options).tls is not None) == tls


def test_precedence_of_the_rest() -> None:
    """Option, then the traces' variable, then the general one, then the default."""
    assert settled().timeout_s == 10
    assert settled({"TIMEOUT": "1500"}).timeout_s == 1.5
    assert settled({"TIMEOUT": "1500", "TRACES_TIMEOUT": "250"}).timeout_s == 0.25
    assert settled({"TIMEOUT": "1500"}, timeout="3s").timeout_s == 3
    assert settled({"COMPRESSION": "gzip", "TRACES_COMPRESSION": "none"}).compression == "none"
    assert settled({"PROTOCOL": "http/json", "TRACES_PROTOCOL": "grpc"}).protocol == "grpc"


def test_headers() -> None:
    """TRACES_HEADERS replaces HEADERS; an option adds to them and wins for its name."""
    both = {
        "HEADERS": "general=1",
        "TRACES_HEADERS": " Api-Key = a%20b%2Cc%3D , x-tenant=t1,,Authorization=Bearer abc==",
    }
    assert settled(both).headers == (
        ("api-key", "a b,c="),
        ("x-tenant", "t1"),
        ("authorization", "Bearer abc=="),
    )
    assert settled({"HEADERS": "a=1,b=2"}, headers=["B=3%20", "c=x=y"]).headers == (
        ("a", "1"),
        ("b", "3%20"),
        ("c", "x=y"),
    )


@given(
    st.dictionaries(
        st.from_regex(r"\A[a-z0-9_.]{1,20}\Z"),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.strip),
        min_size=1,
    )
)
def test_headers_are_percent_decoded(wanted: dict[str, str]) -> None:
    """Any printable value comes back from its percent-encoded form."""
    text = ",".join(f"{name}={urllib.parse.quote(value)}" for name, value in wanted.items())
    assert dict(headers.resolve((), {PREFIX + "HEADERS": text})) == wanted


BAD = [
    ({"endpoint": "ftp://h:1"}, {}, "--endpoint 'ftp://h:1'"),
    ({"endpoint": f"http://me:{SECRET}@h:1"}, {}, "--endpoint 'http://…@h:1'"),
    ({"endpoint": f"http://h:1/?token={SECRET}"}, {}, "--endpoint 'http://h:1/?…'"),
    ({"endpoint": "http://h:1/v1/traces"}, {}, "OTLP/gRPC has none"),
    ({"endpoint": "http://h:0"}, {}, "port from 1 to 65535"),
    ({}, {"ENDPOINT": "http://h:x"}, PREFIX + "ENDPOINT 'http://h:x'"),
    ({}, {"PROTOCOL": "thrift"}, PREFIX + "PROTOCOL 'thrift'"),
    ({}, {"TRACES_PROTOCOL": "thrift"}, PREFIX + "TRACES_PROTOCOL 'thrift'"),
    ({"transport": "pigeon"}, {}, "--transport 'pigeon'"),
    ({"transport": "grpc", "encoding": "json"}, {}, "only with --transport http"),
    ({"encoding": "xml"}, {}, "--encoding 'xml'"),
    ({"compression": "lzw"}, {}, "--compression 'lzw'"),
    ({}, {"COMPRESSION": "lzw"}, PREFIX + "COMPRESSION 'lzw'"),
    ({}, {"INSECURE": "maybe"}, PREFIX + "INSECURE 'maybe'"),
    ({"timeout": "0"}, {}, "--timeout '0'"),
    ({}, {"TIMEOUT": "10s"}, PREFIX + "TIMEOUT '10s'"),
    ({}, {"TIMEOUT": "0"}, PREFIX + "TIMEOUT '0'"),
    ({"insecure": True, "endpoint": "https://h"}, {}, "--insecure: cannot"),
    ({"insecure_skip_verify": True, "endpoint": "http://h"}, {}, "needs an https:// endpoint"),
    ({"ca_cert": "x", "endpoint": "http://h"}, {}, "--ca-cert: needs"),
    ({"client_key": "x", "endpoint": "http://h"}, {}, "--client-key: needs"),
    ({"ca_cert": "/no/such.pem", "endpoint": "https://h"}, {}, "--ca-cert '/no/such.pem': No such"),
    (
        {"endpoint": "https://h"},
        {"CERTIFICATE": "/no/such.pem"},
        PREFIX + "CERTIFICATE '/no/such.pem'",
    ),
    (
        {"endpoint": "https://h"},
        {"CLIENT_CERTIFICATE": __file__},
        PREFIX + "CLIENT_CERTIFICATE",
    ),
    ({"endpoint": "https://h", "ca_cert": __file__}, {}, "must hold certificates in PEM"),
    (
        {"endpoint": "https://h", "client_cert": __file__, "client_key": __file__},
        {},
        "must be a certificate in PEM",
    ),
    ({"headers": [SECRET]}, {}, "--header: must be NAME=VALUE"),
    ({"headers": [f"authorization: Bearer {SECRET}="]}, {}, "--header: must be NAME=VALUE"),
    ({"headers": ["a=1", SECRET]}, {}, "--header, no. 2: must be NAME=VALUE"),
    ({"headers": [f"grpc-x={SECRET}"]}, {}, "blaster sets it itself"),
    ({"headers": [f"Content-Type={SECRET}"]}, {}, "'content-type': blaster sets it"),
    ({"headers": [f"x-bin={SECRET}"]}, {}, "binary"),
    ({"headers": [f"x={SECRET}\n"]}, {}, ""),
    ({"headers": [f"x={SECRET}\nz"]}, {}, "header 'x': its value"),
    ({}, {"HEADERS": f"a=1,{SECRET}"}, PREFIX + "HEADERS, member 2"),
    ({}, {"HEADERS": f"a={SECRET}%zz"}, "two hexadecimal digits"),
    ({}, {"TRACES_HEADERS": f"a={SECRET}%0d%0a"}, "printable ASCII"),
]


@pytest.mark.parametrize(("options", "environ", "said"), BAD)
def test_what_is_wrong_is_named(
    options: dict[str, object], environ: dict[str, str], said: str
) -> None:
    """One line that names the option or the variable, and never a secret."""
    if not said:
        assert settled(environ, **options).headers == (("x", SECRET),)
        return
    with pytest.raises(UsageError) as raised:
        settled(environ, **options)
    message = str(raised.value)
    assert said in message and SECRET not in message and "\n" not in message


def test_nothing_shows_a_secret() -> None:
    """Neither the settings' text nor a peer's answer that repeats a value shows it."""
    options = {"headers": [f"authorization=Bearer {SECRET}", "x=ab"]}
    settings = settled(**options)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(OtlpOptions(headers=[SECRET], environ={"A": SECRET}))
    assert settings.hide(f"no such token {SECRET}, ab!") == "no such token …, ab!"
    assert settings.hide(f"'Bearer {SECRET}'") == "'…'"


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0")), max_size=6))
def test_values_are_found_in_the_command_line(arguments: list[str]) -> None:
    """A header's value is found amid any other text, and nothing else is."""
    before = [a for a in arguments if not re.search(r"^--(verify-)?header|://", a)]
    line = [*before, "--header", "k=v1", "--verify-header=k=v2", "--header", "bare", *before]
    line += ["--scrape", "https://me:pw@host/", "--verify=tempo=http://key@host"]
    data = "\0".join([*line, ""]).encode()
    found = [data[at : at + length] for at, length in secret_arguments(data)]
    assert found == [b"v1", b"v2", b"bare", b"me:pw", b"key"]


def test_values_are_found_in_the_environment() -> None:
    """The values of the variables of headers, and nothing else."""
    area = b"A=1\0OTEL_EXPORTER_OTLP_HEADERS=k=v,l=w\0OTEL_EXPORTER_OTLP_TIMEOUT=5\0"
    assert [area[at : at + length] for at, length in secret_variables(area)] == [b"k=v,l=w"]


def test_the_guide_lists_every_variable() -> None:
    """Each variable that is read stands on the guide's page of transports."""
    text = (Path(__file__).parent.parent / "blaster/guide/transports.md").read_text()
    for name in (
        *("ENDPOINT", "HEADERS", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY"),
        *("CLIENT_CERTIFICATE", "TIMEOUT", "INSECURE", "PROTOCOL"),
    ):
        assert f"`{name}`" in text


SAID = {
    "endpoint": "https://127.0.0.1:1",
    "transport": "http",
    "encoding": "json",
    "compression": "gzip",
    "timeout": "3s",
    "headers": ["a=b", "c=d"],
    "ca_cert": "ca.pem",
    "client_cert": "me.pem",
    "client_key": "me.key",
    "insecure": True,
    "insecure_skip_verify": True,
}
COMMANDS = {
    "run": ("blaster.job.resolution.resolve", set()),
    "capacity": ("blaster.job.search.resolve_search", set()),
    "send": ("blaster.transport.otlp_settings.resolve", {"encoding", "compression"}),
    "cluster check": (
        "blaster.transport.otlp_settings.resolve",
        SAID.keys() - {"endpoint", "transport", "ca_cert"},
    ),
}


class Called(Exception):
    pass


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_reaches_the_settings(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Each command that speaks OTLP hands on all that it was told of it."""
    callee, lacks = COMMANDS[command]
    words = command.split() + ["tcp://127.0.0.1:1"] * (command == "cluster check")
    for name, value in SAID.items():
        if name not in lacks:
            option = "--" + name.replace("headers", "header").replace("_", "-")
            for one in value if isinstance(value, list) else [value]:
                words += [option] if one is True else [option, str(one)]

    def called(first: Any, *_: object, **__: object) -> None:
        raise Called(getattr(first, "options", first))

    monkeypatch.setattr(callee, called)
    with pytest.raises(Called) as raised:
        app(words, standalone_mode=False, obj=StopSignals())
    (options,) = raised.value.args
    for name, value in SAID.items():
        if name not in lacks:
            assert getattr(options, name) == value, name
