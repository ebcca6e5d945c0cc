"""Tests of the packages in memory."""
