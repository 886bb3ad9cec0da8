"""What the ``kprod`` command does: one module per command, and the parts they are made of.

A command's module has SUMMARY and DESCRIPTION (texts for --help), ``add_arguments(parser)`` and
``run(args)``, which returns the exit status.
"""
