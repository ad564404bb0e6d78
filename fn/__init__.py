"""The command line of Millrace: a client of its public API alone. Runs on Python 3.9 and later."""
