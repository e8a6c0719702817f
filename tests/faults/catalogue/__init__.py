"""The faults, by what they hurt. `plan.py` beside this folder puts them in order."""
