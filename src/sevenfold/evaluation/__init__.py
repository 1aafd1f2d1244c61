"""Measuring that cannot flatter: figures with their spread, always beside what simple methods reach, and what leaked."""
