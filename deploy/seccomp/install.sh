#!/bin/sh
# Puts uproxy.json where kubelet looks for profiles of type Localhost, as root on a node:
#
#   install.sh [DIR]     DIR is seccomp/ in kubelet's --root-dir: /var/lib/kubelet/seccomp
set -eu
source=$(dirname "$(readlink -f "$0")")/uproxy.json
target=${1:-/var/lib/kubelet/seccomp}
umask 022
mkdir -p "$target"
if [ -d "$target/uproxy.json" ]; then
  echo "$target/uproxy.json is a directory, in which kubelet finds no profile: remove it" >&2
  exit 1
fi
# In one step, because the container runtime may be reading the file while a Pod starts.
cp "$source" "$target/.uproxy.json.$$"
mv -f "$target/.uproxy.json.$$" "$target/uproxy.json"
echo "$target/uproxy.json is there: use it with localhostProfile: uproxy.json"
