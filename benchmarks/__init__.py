"""Measurements. They assert nothing; each prints what it found, with the machine it found it on."""
