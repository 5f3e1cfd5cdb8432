"""A promise that was broken once is broken: its tests are tried again only where the machine was too slow for them.

A module whose tests hold that nothing is lost, or done twice, has `PROMISES` among its marks, and waits with a
`TimeoutError` rather than an assertion. Everything else is tried again whatever happened (``Makefile``).
"""

from __future__ import annotations

import subprocess

import pytest

from services.service import ServiceError

TOO_SLOW = [TimeoutError, subprocess.TimeoutExpired, ServiceError, r"KafkaException: .*\b_TIMED_OUT\b"]

PROMISES = pytest.mark.flaky(reruns=1, only_rerun=TOO_SLOW)
