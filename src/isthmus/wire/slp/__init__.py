# SPDX-License-Identifier: BSD-3-Clause
"""The Service Location Protocol, version 2 (RFC 2608): messages, attributes, predicates, service URLs.

Only octets and text are known here. Who answers what is ``isthmus.daemon.discovery``;
which attributes an RSIP server has is RFC 3105's, and stands there as well.
"""
