#!/bin/sh
# Fetches what `make bench` compares with: PgBouncer 1.24 or later (1.21 brought prepared statements in transaction mode,
# Debian 12 has 1.18) and HAProxy. Silent when target/bench-peers has them, or PATH has them new enough.
#
# On Debian they are Debian 13's packages with their own libraries and libc, unpacked into target/bench-peers and run
# through their own loader: nothing is installed, no service starts, and root is not needed. apt fetches them from the
# machine's own mirror with a sources list, lists and cache that are kept apart from the machine's.
set -eu
cd "$(dirname "$0")/.."
peers=$PWD/target/bench-peers
suite=trixie

say() { echo "install-bench-peers: $1" >&2; }
fail() {
    say "$1"
    exit 1
}

# PgBouncer 1.24 or later: $1 is the program.
new_enough() {
    version=$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer 1\.\([0-9]*\).*/\1/p') && [ "${version:-0}" -ge 24 ]
}

ready() {
    { new_enough "$peers/pgbouncer" || new_enough pgbouncer; } &&
        { "$peers/haproxy" -v || haproxy -v; } >/dev/null 2>&1
}

ready && exit 0
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
    fail "no apt here: put PgBouncer 1.24 or later and HAProxy on PATH"

# The repository that this machine's own Debian comes from.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1)
[ -n "$mirror" ] || fail "no Debian mirror in apt's sources: put PgBouncer 1.24 or later and HAProxy on PATH"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || fail "no $keyring: install debian-archive-keyring"

say "fetching PgBouncer and HAProxy of Debian's $suite into target/bench-peers"
rm -rf "$peers"
mkdir -p "$peers/apt/lists/partial" "$peers/apt/cache/archives/partial" "$peers/apt/packages" "$peers/root"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$peers/apt/sources.list"
# As if nothing were installed: then every library is fetched.
: >"$peers/apt/status"

apt() {
    apt-get -qq -o Dir::Etc::SourceList="$peers/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$peers/apt" -o Dir::State::Lists="$peers/apt/lists" -o Dir::State::status="$peers/apt/status" \
        -o Dir::Cache="$peers/apt/cache" -o Dir::Cache::archives="$peers/apt/cache/archives" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Debug::NoLocking=true "$@" </dev/null
}

apt update
# Of all that an installation would bring, only programs and libraries are of use here.
wanted=$(apt install --print-uris --no-install-recommends pgbouncer haproxy |
    sed -n "s/^'[^']*' \(pgbouncer\|haproxy\|lib[^_]*\)_.*/\1/p")
(cd "$peers/apt/packages" && apt download $wanted)
for package in "$peers"/apt/packages/*.deb; do
    dpkg -x "$package" "$peers/root"
done

libraries=$(dirname "$(find "$peers/root" -name 'libevent-2*.so*' | head -n 1)")
loader=$(find "$peers/root" -name 'ld-linux*.so.*' | head -n 1)
[ -d "$libraries" ] && [ -n "$loader" ] || fail "the packages of $suite do not hold what was expected"
for program in pgbouncer haproxy; do
    cat >"$peers/$program" <<END
#!/bin/sh
exec "$loader" --library-path "$libraries" "$peers/root/usr/sbin/$program" "\$@"
END
    chmod +x "$peers/$program"
done
rm -rf "$peers/apt"
ready || fail "the programs of $suite do not run here: $("$peers/pgbouncer" --version 2>&1 | head -n 1)"
