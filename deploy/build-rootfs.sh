#!/bin/sh
# Writes /opt/uproxy of the container image into a directory: the program and everything it needs
# except Python itself, compiled to bytecode. The Dockerfile calls this script. It needs no container
# engine, so it works anywhere else, too:
#
#   deploy/build-rootfs.sh DIR && DIR/opt/uproxy/uproxy version
#
# PYTHON is the interpreter to build with; the one that runs uproxy must have the same version.
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
  --constraint "$source/constraints.txt" --target "$library" "$source[cluster]"

# Console scripts name the interpreter that built them; the launcher below finds its own.
rm -rf "$library/bin"
# Some wheels contain tests and C sources.
find "$library" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} +
find "$library" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete
# uproxy loads a few modules of this library (uproxy/apiserver/client_library.py), and none of the 40 MB
# of generated code: a class for each type of the Kubernetes API.
rm -rf "$library/kubernetes_asyncio/client/api" "$library/kubernetes_asyncio/client/models"
PYTHONPATH=$library PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 "$python" -c \
  'from uproxy.apiserver import client_library; client_library.load(); client_library.load_election()'
# Wheels are built with symbols for debuggers: 22 of 26 MB.
if command -v strip >/dev/null; then
  find "$library" -name '*.so' -exec strip --strip-unneeded {} +
fi

# The root is read-only at run time, and unchecked hashes save a stat of each source file.
"$python" -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$library"

cat >"$home/uproxy" <<'LAUNCHER'
#!/bin/sh
# Workers are children of this process, so they find the same libraries.
home=$(dirname "$(readlink -f "$0")")
PYTHONPATH=$home/lib PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONSAFEPATH
exec "${UPROXY_PYTHON:-python3}" -m uproxy.cli "$@"
LAUNCHER
chmod 755 "$home/uproxy"

# For the init container in deploy/seccomp.
mkdir "$home/seccomp"
cp "$source/deploy/seccomp/install.sh" "$source/deploy/seccomp/uproxy.json" "$home/seccomp"
