# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What ./run and ./test both need: packages, the virtual environment, the eBPF objects.
# Sourced, from the root of the tree:  . tools/setup.sh; setup run|test
# With everything there it costs a fraction of a second.

PATH=$PATH:/usr/sbin:/sbin
export PATH

RUN_PACKAGES="python3 python3-venv ca-certificates iproute2 util-linux ethtool nftables curl make
  clang llvm libbpf1 libbpf-dev linux-libc-dev"
# The last two lines: stock kernels with ESP, AH and ipip and a stock IKE, for IPsec in the lab; knot, a small stock
# nameserver, serves mapping tables; bird2, a stock routing daemon, finds SIP routes; chromium, a stock browser, reads a
# page of a host that has SIP alone; tayga, a translator of today, is what translation is measured beside; conntrack writes
# the log of NAT; Kea, a stock DHCP server, and perfdhcp (kea-admin) are what leases are measured beside, slirp4netns and
# pasta (passt) what isthmus run is. gcc and libc6-dev compile what plays the hosts in benchmarks.
TEST_PACKAGES="tshark iperf3 openssh-server openssh-client dnsmasq-base bind9-dnsutils git iputils-ping
  traceroute openssl user-mode-linux strongswan-charon strongswan-swanctl
  knot bird2 chromium tayga conntrack kea-dhcp4-server kea-admin slirp4netns passt
  gcc libc6-dev"
PYTHON=/usr/bin/python3
VENV=$PWD/.venv
LOG=""

say() { printf '%s\n' "$*" >&2; }

give_up() {
  say "$*"
  [ -z "$LOG" ] || { say "--- the end of what it said:"; tail -n 25 "$LOG" >&2; }
  exit 2
}

# Run something quietly; what it says is shown only if it fails.
quietly() {
  LOG=${LOG:-$(mktemp)}
  "$@" >"$LOG" 2>&1 </dev/null
}

forget_log() {
  [ -z "$LOG" ] || rm -f "$LOG"
  LOG=""
}

absent_packages() {
  command -v dpkg-query >/dev/null || return 0
  # shellcheck disable=SC2086,SC2016
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' $1 2>/dev/null |
    awk -v all="$1" '$1 == "installed" { got[$2] } END { n = split(all, p); for (i = 1; i <= n; i++) if (!(p[i] in got)) printf "%s ", p[i] }'
}

# Install what is missing. Services of installed packages are not started: nobody asked for an sshd.
install_packages() {
  missing=$(absent_packages "$1")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    [ "$2" = run ] || give_up "missing packages: $missing. Run this as root, or: apt-get install $missing"
    missing_programs
    return 0
  fi
  command -v apt-get >/dev/null || give_up "this is not a Debian: install these by hand: $missing"
  say "installing ${missing}..."
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  else
    policy=""
  fi
  failed=""
  # shellcheck disable=SC2086
  if ! quietly apt_install $missing; then
    quietly apt-get update || failed="apt-get update failed"
    # shellcheck disable=SC2086
    [ -n "$failed" ] || quietly apt_install $missing || failed="apt-get could not install $missing"
  fi
  [ -z "$policy" ] || rm -f "$policy"
  [ -z "$failed" ] || give_up "$failed"
  forget_log
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Without root only this much is looked for: the lab on the reference plane needs no compiler.
missing_programs() {
  absent=""
  for pair in ip:iproute2 ethtool:ethtool nft:nftables curl:curl unshare:util-linux nsenter:util-linux python3:python3; do
    command -v "${pair%%:*}" >/dev/null || absent="$absent ${pair#*:}"
  done
  [ -z "$absent" ] || give_up "missing packages:$absent. Ask for: apt-get install$absent; or run this as root, which installs them"
}

# Make .venv, unless it was made from this very pyproject.toml.
install_python() {
  extra=$1
  stamp=$VENV/.made-for-$extra
  wanted="$(cat pyproject.toml hatch_build.py | sha256sum | cut -c 1-32) $PWD"
  # What was made for the tests will do for running, too.
  for made in "$stamp" "$VENV/.made-for-test"; do
    [ ! -x "$VENV/bin/python" ] || [ "$(cat "$made" 2>/dev/null)" != "$wanted" ] || return 0
  done
  if [ -x "$VENV/bin/isthmus" ] && [ ! -w "$VENV" ]; then
    say "note: .venv was made from another pyproject.toml and is not yours to change; going on with it"
    return 0
  fi
  [ -x $PYTHON ] || give_up "$PYTHON is missing: apt-get install python3 python3-venv"
  [ -w . ] || give_up "there is no .venv here, and this directory is not yours to write: copy the tree, or run ./run once as root"
  say "making .venv ($extra) ..."
  [ -x "$VENV/bin/python" ] || quietly $PYTHON -m venv "$VENV" || give_up "python3 -m venv failed: apt-get install python3-venv"
  quietly "$VENV/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' || give_up "pip could not be upgraded"
  group=""
  [ "$extra" = run ] || group="--group dev"
  # shellcheck disable=SC2086
  quietly "$VENV/bin/python" -m pip install --quiet --editable . $group || give_up "pip could not install the project"
  forget_log
  printf '%s' "$wanted" >"$stamp"
}

compile_bpf() {
  if ! command -v clang >/dev/null; then
    [ "$(id -u)" != 0 ] || give_up "clang is missing"
    return 0
  fi
  [ -w bpf ] || return 0
  quietly make -s -C bpf || give_up "the eBPF programs do not compile"
  forget_log
}

setup() {
  if [ "$1" = test ]; then
    install_packages "$RUN_PACKAGES $TEST_PACKAGES" test
  else
    install_packages "$RUN_PACKAGES" run
  fi
  install_python "$1"
  compile_bpf
}
