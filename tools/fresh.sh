#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Prove that no install step is missing: make a new Debian 12, put the tree into it as git sees it,
# and run ./run --once and ./test there. The new machine gets packages the way this one does: its apt
# sources and keys, its pip configuration, its certificates and its proxies are copied, nothing else.
#   tools/fresh.sh           both
#   tools/fresh.sh COMMAND   that command instead, for instance:  tools/fresh.sh './run --once'
set -u
cd "$(dirname "$0")/.." || exit 2

say() { printf '%s\n' "$*" >&2; }
[ "$(id -u)" = 0 ] || { say "make fresh needs root: it makes a Debian and changes its root to it"; exit 2; }

# Everything happens in mount and pid namespaces of its own: whatever becomes of this script, no mount outlives it.
if [ -z "${ISTHMUS_FRESH_INSIDE-}" ]; then
  for package in debootstrap git; do
    command -v $package >/dev/null || apt-get install -y -q --no-install-recommends $package >/dev/null || exit 2
  done
  new=$(mktemp -d /var/tmp/isthmus-fresh.XXXXXX)
  child=""
  # unshare takes its child with it, and the child is process 1 of all that runs in there.
  trap '[ -z "$child" ] || kill -KILL "$child" 2>/dev/null; wait; rmdir "$new"' EXIT
  trap 'exit 143' TERM HUP INT
  ISTHMUS_FRESH_INSIDE=$new unshare --mount --pid --fork --kill-child --propagation private \
    env --default-signal=INT "$0" "$@" &
  child=$!
  wait $child
  code=$?
  child=""
  exit $code
fi

new=$ISTHMUS_FRESH_INSIDE
mount -t tmpfs -o size=90%,mode=755,dev,exec tmpfs "$new" || exit 2

# The first repository of this machine that has bookworm, in either of the two ways that apt knows.
mirror() {
  cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" { uri = $2 } $1 == "Suites:" && $2 == "bookworm" { print uri; exit }'
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '$1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /^[a-z]+:/ && $(i + 1) == "bookworm") { print $i; exit } }'
}
source=$(mirror | head -n 1)
[ -n "$source" ] || { say "no apt source of this machine has bookworm"; exit 2; }
proxy=$(apt-config dump Acquire::http::Proxy 2>/dev/null | sed -n 's/.*"\(.*\)".*/\1/p' | head -n 1)
[ -z "$proxy" ] || export http_proxy="${http_proxy-$proxy}"

began=$SECONDS
say "making a new Debian 12 ..."
log=$new/debootstrap.log
if ! debootstrap --variant=minbase bookworm "$new" "$source" >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  exit 2
fi
rm -f "$log"

# Where packages come from, as on this machine.
rm -rf "$new/etc/apt/sources.list" "$new/etc/apt/sources.list.d"
mkdir -p "$new/usr/share/keyrings" "$new/usr/local/share"
cp -a /etc/apt/. "$new/etc/apt/"
cp -a /usr/share/keyrings/. "$new/usr/share/keyrings/"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
  [ ! -e $file ] || cp -L $file "$new$file"
done
for directory in .config/pip .pip; do
  [ ! -d "$HOME/$directory" ] || { mkdir -p "$new/root/$(dirname $directory)"; cp -a "$HOME/$directory" "$new/root/$directory"; }
done
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
  mkdir -p "$new/etc/ssl/certs" "$new/usr/local/share/ca-certificates/of-the-maker"
  cp -L /etc/ssl/certs/ca-certificates.crt "$new/etc/ssl/certs/"
  # One file each: installing ca-certificates makes the bundle again out of these.
  awk -v to="$new/usr/local/share/ca-certificates/of-the-maker" \
    '/BEGIN CERTIFICATE/ { file = to "/" ++n ".crt" } file { print > file } /END CERTIFICATE/ { close(file); file = "" }' \
    /etc/ssl/certs/ca-certificates.crt
fi
# Directories of packages that pip's configuration names; an index links to files beside it.
{ cat /etc/pip.conf "$HOME"/.config/pip/pip.conf "$HOME"/.pip/pip.conf 2>/dev/null; env | grep '^PIP_'; } |
  grep -oE '(file://)?/[A-Za-z0-9_./-]+' | sed 's,^file://\(/.*/.*\)/[^/]*$,\1,; s,^file://,,' | sort -u | while read -r path; do
  [ -d "$path" ] || continue
  mkdir -p "$new$path"
  mount --bind -o ro "$path" "$new$path"
done

for point in proc sys dev run; do mkdir -p "$new/$point"; done
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount --rbind /dev "$new/dev"
mount -t tmpfs -o mode=755 tmpfs "$new/run"

# The tree as git sees it: what it tracks, and what it does not ignore.
mkdir -p "$new/work/isthmus"
git -c safe.directory="$PWD" ls-files --cached --others --exclude-standard -z |
  while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
  tar --null --no-recursion -T - -cf - | tar -C "$new/work/isthmus" --no-same-owner -xf -
say "made in $((SECONDS - began)) s"

# From here on the new machine is all there is. Not chroot: a process whose root was changed so may not make user namespaces.
keep=$(env | grep -E '^(PIP_|SSL_|CURL_CA_BUNDLE=|REQUESTS_CA_BUNDLE=|https?_proxy=|no_proxy=|HTTPS?_PROXY=|NO_PROXY=)' |
  grep -v "[' ]")
mkdir "$new/.old"
cd "$new" || exit 2
pivot_root . .old || exit 2
umount -l /.old && rmdir /.old
cd /work/isthmus || exit 2

inside() {
  said=$*
  began=$SECONDS
  say "--- $said"
  # shellcheck disable=SC2086
  env -i HOME=/root TERM="${TERM-dumb}" LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    $keep sh -c "$said" </dev/null
  code=$?
  say "--- $said: exit code $code after $((SECONDS - began)) s"
  return $code
}

if [ $# -gt 0 ]; then
  inside "$*"
else
  inside ./run --once && inside ./test
fi
