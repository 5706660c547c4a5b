#!/usr/bin/env bash
# Prepares what tests/tests/interop.rs talks to: npm's jose and PyPI's jwcrypto, in the versions pinned here. Needs python3 with venv,
# and Node.js 20 or later with npm. May be run again at any time.
set -euo pipefail
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
npm ci --silent --ignore-scripts --no-audit --no-fund
echo "interop: ready; run: cargo test -p sealwire-tests --test interop"
