"""Pickles, and the arrays that pickles contain or that may contain pickles."""
