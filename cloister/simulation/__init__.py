"""Runs whole studies on one machine: deals records to sites, runs, sweeps and compares."""
