"""Has anything in a store changed since it was signed: one file for each kind of object."""
