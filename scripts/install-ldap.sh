#!/bin/sh
# Installs OpenLDAP's slapd through the system's package manager if it is missing: tests of method ldap start
# their own, in temporary directories. Silent when it is there.
set -eu

[ -x /usr/sbin/slapd ] && exit 0
[ -x /usr/libexec/slapd ] && exit 0
echo "install-ldap: installing slapd" >&2
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if command -v apt-get >/dev/null 2>&1; then
    install="$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slapd"
    $install </dev/null || { $sudo apt-get update -qq && $install; } </dev/null
elif command -v dnf >/dev/null 2>&1; then
    $sudo dnf install -y -q openldap-servers
else
    echo "install-ldap: install OpenLDAP's slapd with the system's package manager" >&2
    exit 1
fi
