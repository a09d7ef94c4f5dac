"""Raft as a value: no clock, no disk, no socket (Ongaro and Ousterhout, 2014; Ongaro's thesis)."""
