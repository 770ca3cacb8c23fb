# What scripts share that start PostgreSQL and the pooler: an account for them, a free port, and the pooler's life. Sourced, with
# `fail` and `bindir` (PostgreSQL's programs) set, and `work` (a folder of their own) when one of these is called.

# PostgreSQL refuses to run as root: as src/demo/account.rs has it.
account=
if [ "$(id -u)" = 0 ]; then
    for name in postgres nobody; do
        [ -n "$account" ] || ! id -u $name >/dev/null 2>&1 || account=$name
    done
    [ -n "$account" ] || fail "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
    command -v setpriv >/dev/null 2>&1 || fail "no setpriv here, which runs PostgreSQL as $account: run this as another user"
fi
# Runs what PostgreSQL's own account may, with nothing in its environment, in place of this shell: no logs of other runs, and a
# PGHOST in somebody's shell leads to no other server.
plain() {
    if [ -n "$account" ]; then
        set -- setpriv --reuid="$account" --regid="$(id -g "$account")" --init-groups -- "$@"
    fi
    exec env -i PATH="$bindir:$PATH" HOME="$work" "$@"
}

# Below 32768 no system takes the near end of a connection from: what is free stays free until it is used.
random_port() { echo $((10240 + $(od -An -N2 -tu2 /dev/urandom) % 22528)); }

pooler_pid=
stop_pooler() {
    [ -n "$pooler_pid" ] || return 0
    kill -QUIT "$pooler_pid" 2>/dev/null || true
    wait "$pooler_pid" 2>/dev/null || true
    pooler_pid=
}

# Whether the program $1 serves with $work/pooler.toml, whose port was drawn: what comes behind $1 logs in by it. Not if the port
# was taken, in `tries` draws at most; what else is wrong ends the script.
pooler_serves() {
    pooler_program=$1
    shift
    chmod a+r "$work/pooler.toml"
    (plain "$pooler_program" run "$work/pooler.toml") >"$work/pooler.log" 2>&1 &
    pooler_pid=$!
    polls=0
    while kill -0 "$pooler_pid" 2>/dev/null && [ $polls -lt 100 ]; do
        ("$@") >/dev/null 2>&1 && return
        polls=$((polls + 1))
        sleep 0.1
    done
    stop_pooler
    tries=$((tries + 1))
    [ $tries -lt 10 ] && grep -q 'in use' "$work/pooler.log" ||
        { cat "$work/pooler.log" >&2 && fail "the pooler did not start"; }
    return 1
}
