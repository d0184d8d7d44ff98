"""What the dedupe window keeps of a request: a few bytes, from which nothing can be read back."""

import hashlib
from typing import Final, NamedTuple

DIGEST_BYTES: Final = 16
"""Two of a billion requests are alike by chance with a probability of 2⁻⁶⁹."""
_PREFIX: Final = b"dedup:"  # with the digest it fills 24 bytes, a size that Redis allocates


class Fingerprint(NamedTuple):
    """Who asked under which id (`key`, 22 bytes), and what (`payload`, 16 bytes)."""

    key: bytes
    payload: bytes


def fingerprint(*, system: str, source: str, request_id: str, payload_digest: bytes) -> Fingerprint:
    """Return the fingerprint of a request.

    Args:
        system: prefix of the system's topics; several systems may share one Redis.
        source: whose id it is: ids of different sources never meet.
        request_id: as the client chose it.
        payload_digest: sha256 of what is asked.
    """
    digest = hashlib.sha256()
    for part in (system, source, request_id):
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded))  # so that no two lists of parts look alike
        digest.update(encoded)
    return Fingerprint(_PREFIX + digest.digest()[:DIGEST_BYTES], payload_digest[:DIGEST_BYTES])
