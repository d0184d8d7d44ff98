"""What our worker is compared with: the same work, written as users of other libraries would.

Each module answers embed requests with one library and nothing of our engine:
`python -m cortex_stream.loadtest.peers.<name> --help`.
"""
