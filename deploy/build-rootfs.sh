#!/bin/sh
# Makes /opt/uproxy of the container image below a directory: the program with all it needs, but
# Python itself, compiled to bytecode. Runs in the Dockerfile and, as it needs no container engine,
# anywhere else:
#
#   deploy/build-rootfs.sh DIR && DIR/opt/uproxy/uproxy version
#
# PYTHON names the interpreter to build with; the one that runs it has to be of the same version.
set -eu

if [ "$#" -ne 1 ]; then
  echo "usage: $0 DIR" >&2
  exit 2
fi
python=${PYTHON:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
home=$root/opt/uproxy
library=$home/lib

if [ -e "$home" ]; then
  echo "$home is there already: give a directory without it" >&2
  exit 2
fi
mkdir -p "$home"

"$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
  --constraint "$source/constraints.txt" --target "$library" "$source"

# Console scripts name the interpreter that built them; the launcher below finds its own.
rm -rf "$library/bin"
# Tests and C sources that some wheels carry.
find "$library" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} +
find "$library" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete

# The root is read-only at run time, and checking the time of each source file would cost a stat.
"$python" -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$library"

cat >"$home/uproxy" <<'LAUNCHER'
#!/bin/sh
# Workers are started as children of this, so they find the same library.
home=$(dirname "$(readlink -f "$0")")
PYTHONPATH=$home/lib PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONSAFEPATH
exec "${UPROXY_PYTHON:-python3}" -m uproxy.cli "$@"
LAUNCHER
chmod 755 "$home/uproxy"
