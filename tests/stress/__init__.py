"""Stress tests: damaged and hostile inputs, kills, full disks. Each part compares its figures with bars."""
