# What the programs of libpq's tools share: sessions that are processes, all at once.
sessions=${SESSIONS:-50}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# together NAME FUNCTION: every session runs FUNCTION NUMBER, whose last line of output says what is wrong if it fails.
together() {
    session=0
    while [ $session -lt "$sessions" ]; do
        { "$2" $session >"$scratch/$session.out" 2>&1 || touch "$scratch/$session.bad"; } &
        session=$((session + 1))
    done
    wait
    bad=$(find "$scratch" -name '*.bad' | wc -l)
    if [ "$bad" = 0 ]; then
        echo "ok $1"
    else
        first=$(find "$scratch" -name '*.bad' | sort | head -n 1)
        echo "FAILED $1 $bad of $sessions sessions: $(tail -n 3 "${first%.bad}.out" | tr -s '\n\t ' ' ')"
        cat "${first%.bad}.out" >&2
    fi
    rm -f "$scratch"/*.bad "$scratch"/*.out
}
