"""`python -m cortex_stream` is the command `cortex-stream`."""

from cortex_stream.cli.main import main

main()
