"""Attacks for operators (`probe`), and approvals of demonstrations (`demo_approvals`)."""
