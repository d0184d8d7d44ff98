"""Requests of one mebibyte that try to cost more than their size."""

MEBIBYTE = 1 << 20


def hostile(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((MEBIBYTE - len(head) - len(tail)) // len(unit)) + tail


DATA = b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":'
HOSTILE = {
    "dense numbers": hostile(DATA + b"[0", b",0", b"]}}"),
    "small lists": hostile(DATA + b"[0", b",[]", b"]}}"),
    "small objects": hostile(DATA + b"[0", b',{"a":0}', b"]}}"),
    "small texts": hostile(DATA + b'["a"', b',"a"', b"]}}"),
    "escapes": hostile(DATA + b'["', b"\\u0061", b'"]}}'),
    "escaped quotes": hostile(DATA + b'[[[[],"', b'\\"', b'"]]]}}'),
    "backslashes": hostile(DATA + b'[[[[],"', b"\\\\", b'"]]]}}'),
    "numbers beside an escape": hostile(b'{"\\u0061":1,"id":"1","data":[0', b",0", b"]}"),
    "unknown fields": hostile(b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"a":0', b',"a":0', b"}}"),
    "keys beside an escape": hostile(b'{"id":"1","\\u0061":1', b',"a":0', b"}"),
    "repeated ids": hostile(b'{"id":"1"', b',"id":"1"', b"}"),
    "unfinished": hostile(b'{"id":"1","a":', b'[{"a":', b""),
    "white space": hostile(b"", b" ", b""),
    "ids that are none": hostile(b"{", b'"a":"b",', b""),
    "long numbers": hostile(DATA + b"[0", b"," + b"9" * 300, b"]}}"),
}  # fmt: skip
