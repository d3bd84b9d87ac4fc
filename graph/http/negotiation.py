"""Content negotiation: the media types of requests and responses, and their compression."""

import re
from functools import lru_cache

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
HTML = "text/html"

CONTENT_TYPES = {media_type: f"{media_type}; charset=utf-8".encode() for media_type in (JSON, GRAPHQL)}
"""The Content-Type header of a response, by its media type."""

_UTF_8 = ("utf-8", "utf8")
_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@lru_cache(maxsize=64)
def negotiate(accept: bytes, *, html: bool) -> str | None:
    """Return the media type that the Accept header prefers, or None if it accepts none; HTML only if `html`."""
    qualities: dict[str, float] = {}
    for media_range in (accept.decode("latin-1") or "*/*").split(","):
        name, parameters = _parse_media_type(media_range)
        quality = parameters.get("q", "1")
        if parameters.get("charset", "utf-8") in _UTF_8 and _QUALITY.fullmatch(quality):
            qualities[name] = float(quality)

    def rank(media_type: str) -> tuple[float, int, bool]:
        for distance, name in enumerate((media_type, re.sub("/.*", "/*", media_type), "*/*")):
            if name in qualities:
                # a client that accepts anything gets JSON, one that names both at equal quality gets GRAPHQL
                return qualities[name], -distance, distance == 0 and media_type == GRAPHQL
        return 0, 0, False

    best = max((JSON, GRAPHQL, HTML) if html else (JSON, GRAPHQL), key=rank)
    return best if rank(best)[0] else None


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether Accept-Encoding allows gzip, by name or as `*`, at a quality above zero."""
    qualities: dict[str, str] = {}
    for coding in accept_encoding.decode("latin-1").split(","):
        name, parameters = _parse_media_type(coding)
        qualities[name] = parameters.get("q", "1")
    quality = qualities.get("gzip", qualities.get("*", "0"))
    return bool(_QUALITY.fullmatch(quality)) and float(quality) > 0


@lru_cache(maxsize=64)
def is_json(content_type: bytes) -> bool:
    """Return whether a Content-Type header announces JSON in UTF-8."""
    media_type, parameters = _parse_media_type(content_type.decode("latin-1"))
    return media_type == JSON and parameters.get("charset", "utf-8") in _UTF_8


def _parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    """Split `text/html; Charset="UTF-8"` into `text/html` and its parameters, all in lower case."""
    name, *parameters = text.lower().split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip(), {key.strip(): value.strip().strip('"') for key, _, value in pairs}
