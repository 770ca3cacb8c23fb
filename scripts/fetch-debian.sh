#!/bin/sh
# Unpacks packages of another Debian suite than the machine's own, with the libraries that they need:
# `fetch-debian.sh SUITE DIRECTORY PACKAGE...` fills DIRECTORY/root. Nothing is installed, no service starts, and root is not
# needed: apt fetches from the machine's own mirror, with a sources list, lists and cache that are kept apart from the machine's.
set -eu
suite=$1
directory=$2
shift 2

fail() {
    echo "fetch-debian: $1" >&2
    exit 1
}
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || fail "no apt here"
# The repository that this machine's own Debian comes from.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1)
[ -n "$mirror" ] || fail "no Debian mirror in apt's sources"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || fail "no $keyring: install debian-archive-keyring"

rm -rf "$directory"
mkdir -p "$directory/apt/lists/partial" "$directory/apt/cache/archives/partial" "$directory/apt/packages" "$directory/root"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$directory/apt/sources.list"
# As if nothing were installed: then every library is fetched.
: >"$directory/apt/status"

apt() {
    apt-get -qq -o Dir::Etc::SourceList="$directory/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$directory/apt" -o Dir::State::Lists="$directory/apt/lists" \
        -o Dir::State::status="$directory/apt/status" -o Dir::Cache="$directory/apt/cache" \
        -o Dir::Cache::archives="$directory/apt/cache/archives" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Debug::NoLocking=true "$@" </dev/null
}

apt update
# Of all that an installation would bring, only the packages themselves and libraries are of use.
names=$(echo "$*" | sed 's/ /\\|/g')
wanted=$(apt install --print-uris --no-install-recommends "$@" | sed -n "s/^'[^']*' \($names\|lib[^_]*\)_.*/\1/p")
(cd "$directory/apt/packages" && apt download $wanted)
for package in "$directory"/apt/packages/*.deb; do
    dpkg -x "$package" "$directory/root"
done
rm -rf "$directory/apt"
