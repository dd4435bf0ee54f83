"""The program that is PID 1 of a pod: standard library only, few imports, started with `python -I -S`."""
