#!/bin/sh
# Writes uproxy-VERSION-SYSTEM-MACHINE-pyXY.tar.gz into a directory: uproxy and everything it needs
# except Python itself, for machines without pip and without a network. docs/install/bundle.md says
# how it is used.
#
#   deploy/build-bundle.sh DIR           # `make bundle` calls it with dist
#   deploy/build-bundle.sh DIR ROOT      # of what deploy/build-rootfs.sh has written into ROOT
#
# PYTHON is the interpreter to build with; that of the other machine must have the same version.
set -eu

if [ "$#" -ne 1 ] && [ "$#" -ne 2 ]; then
  echo "usage: $0 DIR [ROOT]" >&2
  exit 2
fi
python=${PYTHON:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root=${2:-$work/root}
[ -e "$root/opt/uproxy" ] || PYTHON=$python "$source/deploy/build-rootfs.sh" "$root"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$source/uproxy/__init__.py")
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
system=$("$python" -c 'import sysconfig; print(sysconfig.get_platform())')
name=uproxy-$version-$system-py$(echo "$minor" | tr -d .)
home=$work/$name

cp -R "$root/opt/uproxy" "$home"
mkdir "$home/bin"
cat >"$home/bin/uproxy" <<LAUNCHER
#!/bin/sh
home=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
UPROXY_PYTHON=\${UPROXY_PYTHON:-python$minor}
if ! command -v "\$UPROXY_PYTHON" >/dev/null; then
  echo "uproxy: there is no \$UPROXY_PYTHON: install Python $minor, or name one with UPROXY_PYTHON" >&2
  exit 2
fi
# Compiled libraries fit one version. python$minor has it, and only another name has to be asked.
if [ "\$UPROXY_PYTHON" != python$minor ] &&
    ! "\$UPROXY_PYTHON" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$minor")'; then
  echo "uproxy: \$UPROXY_PYTHON is not Python $minor, for which this bundle is" >&2
  exit 2
fi
export UPROXY_PYTHON
exec "\$home/uproxy" "\$@"
LAUNCHER
chmod 755 "$home/bin/uproxy"
cp "$source/LICENSE" "$source/deploy/systemd/uproxy.service" "$home"
cp -R "$source/examples" "$home"

# Compiled files do not depend on times (build-rootfs.sh), so the same sources make the same archive.
# Other users may read everything, also if those that this user makes are private (umask 077): a
# service runs as a user of its own.
tar --create --gzip --file "$target/$name.tar.gz" --directory "$work" \
  --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime='2020-01-01 00:00Z' "$name"
echo "$target/$name.tar.gz"
