"""Runs the suite on the backend of `--hsm-uri`."""

from hsm.conformance.suite import *  # noqa: F403
