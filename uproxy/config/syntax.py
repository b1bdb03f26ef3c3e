"""How values are written in flags, variables and the configuration file.

Each function returns the value or raises ValueError with one line that quotes what was given and
says what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from uproxy.config.settings import Address
from uproxy.core.ip import Network, parse_ip, parse_network
from uproxy.core.suggestions import closest

MAX_WORKERS: Final = 64
MAX_FLOWS: Final = 10_000_000
MAX_METRICS_PER_BACKEND: Final = 10_000
"""Backends with metrics of their own: 250,000 time series."""
MAX_EVERY: Final = 1_000_000_000
"""Of flows, one of which is logged."""
_API_SERVER_PORT: Final = 6443
"""The default of kube-apiserver's --secure-port."""

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5, micro sign
    "μs": 1e-6,  # U+03BC, Greek letter mu
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_LONGEST: Final = 2.0**63 * 1e-9
"""Seconds. The syntax is Go's, and Go has 64 bits for nanoseconds."""
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(?:{_PIECE.pattern})+")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[-a-z0-9_.]*[a-z0-9])?")
_NODEPORT_KEYWORDS: Final = ("primary", "localhost", "all")
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "f", "false", "no", "off"), False),
}


def parse_duration(text: str) -> float:
    """Seconds from Go's syntax: "30s", "1m30s", "250ms", "0". Negative ones are refused."""
    text = text.strip()
    if text in ("0", "+0", "-0"):
        return 0.0
    if not _DURATION.fullmatch(text):
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            raise ValueError(f'"{text}" has no unit; give {text}s for seconds')
        raise ValueError(f'"{text}" is not a duration; give for example 30s, 1m30s or 250ms')
    if text.startswith("-"):
        raise ValueError(f'"{text}" is negative; give 0 or more')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text))
    if seconds > _LONGEST:
        raise ValueError(f'"{text}" is longer than 292 years; give less, for example 24h')
    return seconds


def parse_label_value(text: str) -> str:
    """The value of a label, or ""."""
    text = text.strip()
    if text and not _LABEL_VALUE.fullmatch(text):
        raise ValueError(
            f'"{text}" is not a label value; give up to 63 letters, digits, "-", "_" and "."'
        )
    return text


def positive_duration(text: str) -> float:
    """Like `parse_duration`, but zero is refused."""
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f'"{text}" is zero; give more, for example 30s')
    return seconds


def format_duration(seconds: float) -> str:
    """A duration, written in the shortest way with one unit: "24h", "90s", "10ms"."""
    if seconds < 1:
        return f"{_decimal(seconds * 1000)}ms" if seconds else "0"
    for unit in ("h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{_decimal(seconds / _UNITS[unit])}{unit}"
    return f"{_decimal(seconds)}s"


def parse_address(text: str, default_port: int | None = None) -> Address | None:
    """ "IP:port" or "[IPv6]:port"; "" is None. Without `default_port` the port is required."""
    text = text.strip()
    if not text:
        return None
    host, port = _split_port(text)
    example = f"0.0.0.0:{default_port or 10256}"
    address = parse_ip(host)
    if address is None:
        raise ValueError(f'"{text}" has no valid IP address; give for example {example}')
    if port is None and default_port is not None:
        return Address(address, default_port)
    if port is None:
        raise ValueError(f'"{text}" is not IP:port; give for example {example}')
    return Address(address, _port(port, text, example))


def parse_server_addresses(text: str) -> tuple[str, ...]:
    """Addresses of API servers, HOST[:PORT], separated by commas; as "HOST:PORT", in which an IPv6
    address has brackets."""
    return tuple(parse_server_address(each) for each in split_list(text))


def parse_server_address(text: str) -> str:
    """One of them. The host is a name or an IP address, and the default port is 6443."""
    text = text.strip()
    _refuse_ambiguous(text)
    host, port = (text, None) if parse_ip(text) else _split_port(text)
    address, example = parse_ip(host), f"192.0.2.1:{_API_SERVER_PORT}"
    # Digits and dots that are no IP address are a mistake, and not the name of a host.
    named = _DNS_NAME.fullmatch(host.lower()) and not host.replace(".", "").isdecimal()
    if address is None and (not named or text.startswith("[")):
        raise ValueError(f'"{text}" is not HOST or HOST:PORT; give for example {example}')
    number = _API_SERVER_PORT if port is None else _port(port, text, example)
    host = address or host.lower()
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def _refuse_ambiguous(text: str) -> None:
    """Whoever writes ::1:6443 means port 6443, though it is an IPv6 address as it stands."""
    host, _, last = text.rpartition(":")
    if ":" in host and last.isdecimal() and len(last) >= 3 and parse_ip(host) and parse_ip(text):
        raise ValueError(
            f'"{text}" may be an IPv6 address, or one with a port; give [{host}]:{last}, or '
            f"[{text}]:{_API_SERVER_PORT}"
        )


def parse_host_names(text: str) -> tuple[str, ...]:
    """DNS names, or "*", separated by commas."""
    return tuple(parse_host_name(each) for each in split_list(text))


def parse_host_name(text: str) -> str:
    """A DNS name in lower case, or "*"."""
    name = text.strip().lower()
    if name != "*" and not _HOST_NAME.fullmatch(name):
        raise ValueError(
            f'"{text}" is not a host name; give it without a port, for example node7.example.com'
        )
    return name


def parse_networks(text: str) -> tuple[str, ...]:
    """CIDRs separated by commas, in canonical form."""
    return tuple(str(_network(each)) for each in split_list(text))


def parse_nodeport_addresses(text: str) -> tuple[str, ...]:
    """CIDRs and the words "primary", "localhost" and "all", in any mix, as in Kubernetes 1.37."""
    return tuple(
        each if each in _NODEPORT_KEYWORDS else str(_network(each, _NODEPORT_KEYWORDS))
        for each in split_list(text)
    )


def parse_cluster_cidr(text: str) -> tuple[str, ...]:
    """One CIDR, or one of each family with a comma between them."""
    networks = [_network(each) for each in split_list(text)]
    if len(networks) > 2:
        raise ValueError(f'"{text}" has {len(networks)} CIDRs; give one, or one of each family')
    if len(networks) == 2 and networks[0].version == networks[1].version:
        raise ValueError(
            f'"{text}" has two IPv{networks[0].version} CIDRs; give one of each family'
        )
    return tuple(str(each) for each in networks)


def parse_boolean(text: str) -> bool:
    """A truth value, as Go accepts it ("true", "1", "f") or as people write it ("yes", "off")."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(f'"{text}" is neither true nor false') from None


def parse_whole_number(text: str, least: int, most: int, example: str) -> int:
    """A number from `least` to `most`."""
    allowed = f"give {least} to {most}, for example {example}"
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise ValueError(f'"{text}" is not a whole number; {allowed}')
    number = int(text)
    if not least <= number <= most:
        raise ValueError(f'"{text}" is out of range; {allowed}')
    return number


def parse_choice(text: str, choices: Sequence[str]) -> str:
    """One of a few words, in upper or lower case."""
    word = text.strip().lower()
    if word in choices:
        return word
    meant = closest(word, choices)
    hint = f"; did you mean {meant}?" if meant else ""
    raise ValueError(f'"{text}" is not {", ".join(choices[:-1])} or {choices[-1]}{hint}')


def split_list(text: str) -> list[str]:
    """The parts between commas, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def node_name(override: str, environ: Mapping[str, str], hostname: str) -> str:
    """The name of this node: the flag, else NODE_NAME (the downward API), else the host's name.

    It is stripped and in lower case, as kubelet registers it. Raises ValueError if all are empty.
    """
    for candidate in _candidates(override, environ, hostname):
        name = candidate.strip().lower()
        if name:
            return name
    raise ValueError("this machine has no host name; give the node's name with --hostname-override")


def _candidates(override: str, environ: Mapping[str, str], hostname: str) -> Iterable[str]:
    return override, environ.get("NODE_NAME", ""), hostname


def _decimal(number: float) -> str:
    """A number without an exponent, which Go's durations do not have, to six places."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _network(text: str, words: Sequence[str] = ()) -> Network:
    network = parse_network(text)
    if network is not None:
        return network
    address = parse_ip(text)
    kinds = f"a CIDR, {', '.join(words[:-1])} or {words[-1]}" if words else "a CIDR"
    if address is not None:
        prefix = 128 if ":" in address else 32
        raise ValueError(f'"{text}" is not {kinds}; give {address}/{prefix} for one address')
    raise ValueError(f'"{text}" is not {kinds}; give for example 10.0.0.0/8 or fd00::/8')


def _port(port: str, text: str, example: str) -> int:
    """The number of a port, which is a part of `text`."""
    if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
        raise ValueError(f'"{text}" has no valid port; give 1 to 65535, for example {example}')
    return int(port)


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None
