import io

from rich.console import Console

from cortex_stream.cli.steps import Steps


def test_without_a_terminal_a_step_is_lines_and_progress_speaks_every_quarter() -> None:
    file = io.StringIO()

    with Steps(Console(file=file, width=80)) as steps:
        steps.begin("services")
        steps.say("kafka [ready]")
        steps.say("redis ready")
        for done in range(101):
            steps.advanced("texts", done=done, total=100)
        steps.advanced("unknown", done=5, total=0)

    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "  services   kafka [ready]",
        "             redis ready",
        *(f"             texts: {percent} %" for percent in (25, 50, 75, 100)),
    ]


def test_on_a_terminal_a_bar_comes_and_goes_without_a_trace_in_the_text() -> None:
    file = io.StringIO()

    with Steps(Console(file=file, width=80, force_terminal=True)) as steps:
        steps.downloaded(done_bytes=1, total_bytes=2)
        steps.downloaded(done_bytes=2, total_bytes=2)
        steps.say("done")

    assert "Kafka jars" in file.getvalue()
    assert "Kafka jars: " not in file.getvalue()
    assert "done" in file.getvalue()
