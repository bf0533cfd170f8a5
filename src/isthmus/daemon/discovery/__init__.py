# SPDX-License-Identifier: BSD-3-Clause
"""Finding the gateway: SLP (RFC 3105), a DHCP option (RFC 3102 §3.5), or both.

At the gateway ``service_agent`` answers for what ``advertisement`` says. At the host ``finding``
asks by DHCP (``dhcp_client``) and SLP (``user_agent``), and ``seeking_host`` is the host role
that begins by finding its gateway, and finds another one when that one is gone.
"""
