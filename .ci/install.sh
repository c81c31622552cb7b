#!/usr/bin/env bash
# Installs what was built into a fresh virtual environment, as a stranger would, and tries it:
#   bash .ci/install.sh wheel|pure|sdist|sdist-without-compiler DIST [PYTHON]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=$1 dist=$(cd "$2" && pwd) python=${3:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip --disable-pip-version-check -q"
case $what in
  # The one of this platform: pip takes it rather than the pure one.
  wheel) $pip install optjax --find-links "$dist" --only-binary optjax --pre; expect=kernel ;;
  pure) $pip install "$dist"/optjax-*-py3-none-any.whl; expect=pure ;;
  sdist) $pip install "$dist"/optjax-*.tar.gz; expect=kernel ;;
  sdist-without-compiler) CXX=false $pip install "$dist"/optjax-*.tar.gz; expect=pure ;;
  *) echo "unknown: $what"; exit 2 ;;
esac
cd "$work" && "$work/venv/bin/python" "$here/smoke.py" "$expect"
