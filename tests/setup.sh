#!/usr/bin/env bash
# Installs what the end-to-end tests run against, into .deps/ (or $MCP_FLEET_DEPS): Node, the official
# conformance suites, real MCP servers, real MCP clients and a gRPC client, at exact versions. Quick when that is done.
# Needs npm, python3 with venv, nginx, HAProxy, valgrind and systemd-analyze; as root on a Debian system it installs
# those itself.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
deps=${MCP_FLEET_DEPS:-$root/.deps}
mkdir -p "$deps"
deps=$(cd "$deps" && pwd)

# HOME may be missing or read-only: caches go elsewhere.
export npm_config_cache=$deps/cache/npm PIP_CACHE_DIR=$deps/cache/pip
export npm_config_loglevel=error npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
export PIP_DISABLE_PIP_VERSION_CHECK=1
# A PATH without the system's folders still finds the system's programs.
export PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

case $(uname -s)-$(uname -m) in
  Linux-x86_64) arch=x64 ;;
  Linux-aarch64) arch=arm64 ;;
  *) die "the end-to-end tests run on Linux on x86_64 or aarch64, not on $(uname -sm)" ;;
esac

# debian PACKAGE...: installs Debian packages, or says what to do.
debian() {
  command -v apt-get >/dev/null || die "missing: $*. Install them with the system's package manager, then run this again"
  [ "$(id -u)" = 0 ] || die "missing: $*. Run: sudo apt-get install $*"
  say "installing $* with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  # The tests start nginx and HAProxy themselves: Debian must not start them as services.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  apt-get install -qq -y --no-install-recommends "$@" >"$deps/apt.log" 2>&1 \
    || { apt-get update -qq >>"$deps/apt.log" 2>&1 && apt-get install -qq -y --no-install-recommends "$@" >>"$deps/apt.log" 2>&1; } \
    || { tail -n 20 "$deps/apt.log" >&2; die "apt-get could not install $* (whole log: $deps/apt.log)"; }
}

# npm_packages DIR PACKAGE@VERSION...: a folder with these npm packages. The stamp holds what was asked for.
npm_packages() {
  local dir=$deps/$1; shift
  [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$*" ] && return
  command -v npm >/dev/null || debian npm ca-certificates
  say "npm: $*"
  rm -rf "$dir"; mkdir -p "$dir"
  echo '{"private":true}' >"$dir/package.json"
  (cd "$dir" && npm install --no-save --no-package-lock --ignore-scripts "$@" >npm.log 2>&1) \
    || { tail -n 20 "$dir/npm.log" >&2; die "npm could not install $*"; }
  echo "$*" >"$dir/.stamp"
}

# python_packages DIR REQUIREMENT...: a virtual environment with these packages.
python_packages() {
  local dir=$deps/$1; shift
  [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$*" ] && "$dir/bin/python" -c '' 2>/dev/null && return
  python3 -c 'import venv, ensurepip' 2>/dev/null || debian python3 python3-venv ca-certificates
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "python3 is $(python3 -V): 3.10 or later is needed"
  say "pip: $*"
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q "$@" || die "pip could not install $*"
  echo "$*" >"$dir/.stamp"
}

# The balancers that deploy/ configures, what checks its systemd units, and what counts instructions.
missing=()
command -v nginx >/dev/null || missing+=(nginx)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v valgrind >/dev/null || missing+=(valgrind)
command -v systemd-analyze >/dev/null || missing+=(systemd)
[ ${#missing[@]} = 0 ] || debian "${missing[@]}"

# A Postgres server for the tests, which start one of their own: any version that is there will do.
postgres() {
  local bin
  for bin in $(dirname "$(command -v initdb || echo /none/x)") /usr/lib/postgresql/*/bin; do
    [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && return
  done
  debian postgresql
}
postgres

# Node comes from npm as well: the suite needs 22, whatever the system has.
npm_packages node "node-linux-$arch@22.23.3"
ln -sfn "node_modules/node-linux-$arch/bin/node" "$deps/node/node"
npm_packages conformance @modelcontextprotocol/conformance@0.2.0-alpha.12
npm_packages conformance-stable @modelcontextprotocol/conformance@0.1.16
npm_packages servers \
  @modelcontextprotocol/server-everything@2026.8.31 @modelcontextprotocol/server-filesystem@2026.8.31
npm_packages clients @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0
npm_packages inspector @modelcontextprotocol/inspector@2.12.0
python_packages python mcp==2.3.0 uvicorn==0.54.0
python_packages mcp1 mcp==1.30.0
python_packages fastmcp fastmcp==4.2.3
# The time server needs mcp 1.x.
python_packages time mcp-server-time==2026.10.19
# What deploy/ci/push.py needs.
python_packages grpc grpcio==1.85.1 grpcio-tools==1.85.1
