"""For all tests: no limit of time, the same examples each time, and Ctrl-C also where a shell ignores it."""

import signal

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests of properties are skipped then
    pass
else:
    settings.register_profile(
        "infinilm",
        deadline=None,
        derandomize=True,  # the same examples in every run
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("infinilm")


def pytest_configure(config: pytest.Config) -> None:
    # It does so for jobs in the background.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
