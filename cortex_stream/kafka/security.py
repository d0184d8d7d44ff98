"""How clients prove who they are: the one translation of `CORTEX_KAFKA__SECURITY__*`."""

import ssl
from typing import Any

from cortex_stream.errors import OperatorError
from cortex_stream.settings.kafka import KafkaSecurity


def security_arguments(security: KafkaSecurity) -> dict[str, Any]:
    """Return the keyword arguments that every aiokafka client takes for transport and identity.

    Raises:
        OperatorError: a file of certificates or the password cannot be read.
    """
    arguments: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol in {"SSL", "SASL_SSL"}:
        arguments["ssl_context"] = tls_context(security)
    if security.protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.sasl_password(),
        }
    return arguments


def tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    """Return a context that checks the broker's certificate and its host name.

    Raises:
        OperatorError: a file is missing or not what it should be; the text names all of them.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=security.ca_file)
        if security.cert_file is not None:
            context.load_cert_chain(security.cert_file, security.key_file)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"reading the certificates for Kafka (ca_file {security.ca_file}, cert_file"
            f" {security.cert_file}, key_file {security.key_file}): {error}",
            repair="mend CORTEX_KAFKA__SECURITY__{CA,CERT,KEY}_FILE; all are PEM files",
        ) from error
    return context
