"""Targets that are right but for one thing each: what the contract must find."""
