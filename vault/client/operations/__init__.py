"""What a client does, written once for both SDKs, without IO.

Each operation is a generator: it yields the calls it needs and is sent their answers, or thrown their errors.
`sync.py` and `aio.py` only carry calls to the wire and answers back. A module for each noun; `access.py` holds what
a client has in hand, `calls.py` what a call is.
"""
