"""For all tests: Ctrl-C works also where the shell that started them ignores it, as for jobs in the background."""

import signal


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
