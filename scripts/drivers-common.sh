# What scripts/drivers.sh and scripts/auth-drivers.sh share: PostgreSQL's programs, what scripts/processes.sh has, and how each
# language's drivers are installed. Sourced, with `what` (who speaks), `here` (drivers/), `top` and `logs` set.

say() { echo "$what: $1" >&2; }
fail() {
    say "$1"
    exit 1
}

bindir=${POOLER_PG_BINDIR:-}
if [ -z "$bindir" ]; then
    bindir=$(pg_config --bindir 2>/dev/null) && [ -x "$bindir/initdb" ] ||
        bindir=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
fi
[ -x "$bindir/initdb" ] && [ -x "$bindir/pgbench" ] || fail "no PostgreSQL server programs: run scripts/install-postgres.sh"
for program in setpriv timeout; do
    command -v $program >/dev/null 2>&1 || fail "no $program here"
done

# --- Installing: one function a language, which fails with a word on what is missing. ---

need_package() { # package, and what it is known by when it is there
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' && return
    command -v apt-get >/dev/null 2>&1 || { echo "no apt-get for $1" && return 1; }
    [ "$(id -u)" = 0 ] || { echo "not root: apt-get install $1" && return 1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >"$logs/apt" 2>&1 </dev/null ||
        { echo "apt-get could not install $1" && return 1; }
}
# Whether what is installed in target/drivers/$1 is from these files; done by `installed`.
is_new() {
    name=$1
    shift
    cat "$@" | cmp -s - "$top/$name/from" && [ -e "$top/$name/from" ]
}
installed() {
    name=$1
    shift
    cat "$@" >"$top/$name/from"
}

install_libpq() { :; }
install_python() {
    is_new python "$here/python/requirements.txt" && return
    command -v python3 >/dev/null || { echo "no python3" && return 1; }
    rm -rf "$top/python"
    python3 -m venv "$top/python" && "$top/python/bin/pip" install -q --disable-pip-version-check \
        -r "$here/python/requirements.txt" >"$logs/pip" 2>&1 || { echo "pip could not install" && return 1; }
    installed python "$here/python/requirements.txt"
}
install_node() {
    mkdir -p "$top/node"
    if ! is_new node "$here/node/package-lock.json"; then
        command -v npm >/dev/null || { echo "no npm" && return 1; }
        cp "$here/node/package.json" "$here/node/package-lock.json" "$top/node"
        # The scripts of packages download programs that nothing here needs.
        (cd "$top/node" && npm ci --ignore-scripts --no-audit --no-fund) >"$logs/npm" 2>&1 ||
            { echo "npm could not install" && return 1; }
        installed node "$here/node/package-lock.json"
    fi
    # A program's modules are looked for beside it.
    cp "$here"/node/*.js "$here"/node/*.prisma "$top/node"
}
install_prisma() {
    install_node || return 1
    # What is generated runs on the driver for pg. The program that `generate` would download is for migrations: any will do.
    (cd "$top/node" && PRISMA_SCHEMA_ENGINE_BINARY=$(command -v node) npx prisma generate) >"$logs/prisma-generate" 2>&1 || { echo "prisma generate: $(tail -n 1 "$logs/prisma-generate")" && return 1; }
}
install_rust() {
    nice -n 19 "${CARGO:-cargo}" build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$top/rust" \
        >"$logs/cargo" 2>&1 || { echo "cargo could not build" && return 1; }
}
install_java() {
    need_package libpostgresql-jdbc-java || return 1
    command -v javac >/dev/null 2>&1 || need_package default-jdk-headless || return 1
    mkdir -p "$top/java"
    is_new java "$here/java/Jdbc.java" && return
    nice -n 19 javac -d "$top/java" -cp /usr/share/java/postgresql.jar "$here/java/Jdbc.java" >"$logs/javac" 2>&1 ||
        { echo "javac failed" && return 1; }
    installed java "$here/java/Jdbc.java"
}
install_go() {
    for package in golang-go golang-github-jackc-pgx-v4-dev golang-github-lib-pq-dev; do need_package $package || return 1; done
    # Debian's packages are sources in /usr/share/gocode, for the mode before modules.
    for program in pgx libpq; do
        (cd "$here/go" && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$top/go/cache" GOFLAGS='' nice -n 19 \
            go build -o "$top/go/$program" $program.go common.go) >"$logs/go" 2>&1 || { echo "go build failed" && return 1; }
    done
}
install_ruby() { need_package ruby && need_package ruby-pg && need_package ruby-activerecord; }
install_php() { need_package php-cli && need_package php-pgsql; }
install_perl() { need_package libdbd-pg-perl; }

. scripts/processes.sh
