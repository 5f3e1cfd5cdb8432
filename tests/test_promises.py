"""What is tried again, and what isn't."""

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("trouble", "tried_again"),
    [
        ("AssertionError('a message was lost')", False),
        ("ValueError('a row is there twice')", False),
        ("TimeoutError('not within 120 s')", True),
        ("subprocess.TimeoutExpired('soak', 2700)", True),
        ("ServiceError('kafka is not ready after 120 s')", True),
        ("KafkaException(KafkaError(KafkaError._TIMED_OUT))", True),
        ("KafkaException(KafkaError(KafkaError._AUTHENTICATION))", False),
    ],
)
def test_a_broken_promise_fails_at_once_and_a_slow_machine_gets_another_chance(pytester, trouble, tried_again):
    pytester.makepyfile(f"""
        import subprocess
        from confluent_kafka import KafkaError, KafkaException
        from services.service import ServiceError
        from tests.promises import PROMISES

        pytestmark = PROMISES
        attempts = []

        def test_it():
            attempts.append(1)
            if len(attempts) == 1:
                raise {trouble}
    """)

    done = pytester.runpytest("--reruns", "1")

    assert done.parseoutcomes() == ({"passed": 1, "rerun": 1} if tried_again else {"failed": 1})
