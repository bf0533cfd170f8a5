# SPDX-License-Identifier: BSD-3-Clause
"""Simulations: the claim of seed IPAE 8.1 about routing tables, measured.

``claim`` is the formula of spec 7.1 and its data; ``plan`` divides the bits of an address;
``generator`` and ``dump`` make a ``population`` of networks, from chance or from a route dump;
``router`` gives the routes of one border router, ``lookup`` the table that holds them;
``move`` counts what a moving site costs, ``routing`` puts all of it together, ``plot`` draws it.

Everything is a function of its arguments and a seed, except what is measured with a clock.
"""
