"""Tests of the command line, over a fake API."""
