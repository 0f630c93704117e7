"""What the operator touches: the command line, the supervisor, checks and looks inside.

Nothing here handles a message; stop everything in this package and the bus still holds what was accepted.
"""
