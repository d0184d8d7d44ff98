"""Records that nobody should send, and what the outcome of each must be named after."""

from typing import NamedTuple

from tests.chaos.history import Identity

_EMBED = b'"type":"cortex.nlp.embed.v1"'


class Malformed(NamedTuple):
    """A value in which `@` stands for the request id, and what can be read of it."""

    value: bytes | None
    identity: Identity
    headers: tuple[tuple[str, bytes | None], ...] = ()


MALFORMED = (
    Malformed(b"hello, embed this please @", "place"),
    Malformed(bytes(range(64)) * 8, "place"),
    Malformed(b"", "place"),
    Malformed(None, "place"),
    Malformed(b"[1,2]", "place"),
    Malformed(b"7", "place"),
    Malformed(b'\xef\xbb\xbf{"id":"@",%s,"data":{"texts":["bom"]}}' % _EMBED, "place"),
    Malformed(b'{"id":"@",%s,"data":{"texts":[NaN]}}' % _EMBED, "bytes"),
    Malformed(b'{"id":"@",%s,"data":{"texts":[1e400]}}' % _EMBED, "bytes"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["\\ud800"]}}' % _EMBED, "bytes"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["\xff\xfe"]}}' % _EMBED, "bytes"),
    Malformed(b'{"id":"@",%s,"data":%s}' % (_EMBED, b"[" * 2000 + b"]" * 2000), "bytes"),
    Malformed(b'{"id":"@",%s,"data":%s}' % (_EMBED, b"[" * 60 + b"]" * 60), "bytes"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["a"]},"type":"other"}' % _EMBED, "bytes"),
    Malformed(b'{"id":"@",%s' % _EMBED, "bytes"),
    Malformed(b'{%s,"data":{"texts":["no id"]}}' % _EMBED, "place"),
    Malformed(b'{"id":7,%s,"data":{"texts":["a"]}}' % _EMBED, "place"),
    Malformed(b'{"id":"@",%s}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":null}' % _EMBED, "data"),
    Malformed(b'{"id":"@","type":"cortex.nlp.sing.v1","data":{}}', "data"),
    Malformed(b'{"id":"@","type":17,"data":{}}', "data"),
    Malformed(b'{"id":"@",%s,"specversion":"0.3","data":{"texts":["a"]}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":{"texts":[]}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["a",""]}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["a\\u0000b"]}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["a"],"modle":"x"}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"data":{"texts":["a"],"model":"gpt-9"}}' % _EMBED, "data"),
    Malformed(b'{"id":"@",%s,"deadlinems":-5,"data":{"texts":["a"]}}' % _EMBED, "data"),
    Malformed(
        b'{"id":"@",%s,"data":{%s}}'
        % (_EMBED, b",".join(b'"f%d":0' % number for number in range(10_000))),
        "data",
    ),
    Malformed(b'{"texts":["a"]}', "place", (("ce_type", b"cortex.nlp.embed.v1"),)),
    Malformed(b'{"texts":["a"]}', "place", (("ce_id", b"\xff"), ("ce_type", b"x"))),
)


def oversized(request_id: str, *, size_bytes: int) -> bytes:
    """Return a request whose value has exactly `size_bytes` bytes; beyond 1 MiB it is refused."""
    head = b'{"id":"%s",%s,"data":{"texts":["' % (request_id.encode(), _EMBED)
    tail = b'"]}}'
    texts = b'","'.join([b"x" * 30_000] * (size_bytes // 30_003 - 1))
    left = size_bytes - len(head) - len(tail) - len(texts) - len(b'","')
    return head + texts + b'","' + b"y" * left + tail
