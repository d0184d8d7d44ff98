"""Faust's settings, each with its reason. They come from ours, never from Faust's environment."""

from typing import Any

import faust
from yarl import URL

from cortex_stream.kafka.security import security_arguments
from cortex_stream.settings.kafka import KafkaSecurity
from cortex_stream.settings.tree import Settings


class FaustSettings(faust.Settings):
    """Faust prefers variables such as BROKER_URL or WEB_BIND to arguments; here they are mute."""

    def getenv(self, env_name: str) -> None:
        """Return nothing: `cortex_stream.settings` is the one reader of the environment."""


def faust_settings(settings: Settings) -> dict[str, Any]:
    """Return the keyword arguments of the Faust app.

    Raises:
        OperatorError: certificates or the password cannot be read.
    """
    kafka = settings.kafka
    return {
        "broker": [URL(f"kafka://{address}") for address in settings.kafka_brokers.split(",")],
        "broker_credentials": _credentials(kafka.security),
        "broker_client_id": "cortex-stream",
        # ---- members and rebalances
        "consumer_group_instance_id": kafka.instance_id,  # None: dynamic, nobody waits for the dead
        "broker_session_timeout": kafka.session_timeout_s,
        "broker_heartbeat_interval": kafka.heartbeat_interval_s,
        # Everybody must have drained by then: the drain, the last commit, and a margin.
        "broker_rebalance_timeout": kafka.drain_timeout_s + 15.0,
        # Never reached while polls go on, and they do even when every topic is full.
        "broker_max_poll_interval": 1000.0,
        "broker_request_timeout": 40.0,
        # ---- reading and committing
        "consumer_auto_offset_reset": "earliest",  # a new group answers what waits
        "processing_guarantee": "at_least_once",  # outcomes have ids; transactions lose records
        "broker_commit_interval": kafka.commit_interval_s,
        "stream_buffer_maxsize": 1_000_000,  # never the bound: credits are
        "stream_wait_empty": True,  # drain on revoke and on stop
        "stream_recovery_delay": 0.0,  # there are no tables to recover
        "key_serializer": "raw",  # a record that does not decode would be committed unseen
        "value_serializer": "raw",
        # ---- nothing of Faust's own on the cluster or on the disk
        "topic_disable_leader": True,
        "topic_allow_declare": False,  # `cortex-stream topics apply` creates topics
        "table_standby_replicas": 0,
        "store": "memory://",
        "version": 1,
        # ---- the process
        "web_port": settings.web.port or None,  # 0, any free one, is no port to Faust: see Pages
        "web_bind": settings.web.host,
        "debug": False,
        "worker_redirect_stdouts": False,
        "Worker": "agents.faust_worker:EdgeWorker",
    }


def _credentials(security: KafkaSecurity) -> Any:
    if security.protocol == "PLAINTEXT":
        return None
    arguments = security_arguments(security)
    context = arguments.get("ssl_context")
    if security.protocol == "SSL":
        return faust.SSLCredentials(context)  # without a context it raises TypeError
    return faust.SASLCredentials(
        username=arguments["sasl_plain_username"],
        password=arguments["sasl_plain_password"],
        ssl_context=context,
        mechanism=arguments["sasl_mechanism"],
    )
