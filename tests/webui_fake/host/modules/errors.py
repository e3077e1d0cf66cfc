"""Where the host reports what it swallows."""

fake_reported = []


def report(message, *, exc_info=False):
    fake_reported.append(message)
