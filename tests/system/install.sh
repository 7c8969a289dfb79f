#!/usr/bin/env bash
# Installs what the system tests need and the machine lacks: as root with apt-get; else it says what is missing.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
while read -r package; do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done < <(grep -v '^#' packages.txt)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "The system tests need these packages: ${missing[*]}. Run as root: apt-get install ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get --quiet update && apt-get --quiet install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  echo "The system tests' packages cannot be installed (${missing[*]}): $(grep '^E:' "$log" | head -n 1)" >&2
  exit 1
fi
