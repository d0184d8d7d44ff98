"""What `faust -A` names."""

from tests.integration.agents.stub_worker import build_app

app = build_app()
