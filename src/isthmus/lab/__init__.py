# SPDX-License-Identifier: BSD-3-Clause
"""Networks of namespaces on one machine, in which the installed program is shown at work.

A *scenario* names a *network*; a *lab* builds it, starts the program in its *nodes*, plays
the scenario, and takes everything away again, whatever happens. Nothing here is imported
by the rest: the lab uses isthmus as its users do, as a program.
"""
