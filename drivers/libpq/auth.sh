#!/bin/sh
# psql: what scripts/auth-drivers.sh asks, a login a line of standard input.
if [ "${1:-}" = --version ]; then
    psql --version | sed 's/^psql (PostgreSQL) \([0-9.]*\).*/psql \1/'
    exit
fi
major=$(psql --version | sed 's/^psql (PostgreSQL) \([0-9]*\).*/\1/')
while read -r line; do
    conninfo="connect_timeout=20"
    for pair in $line; do
        value=${pair#*=}
        case $pair in
            name=*) name=$value ;;
            expect=*) expect=$value ;;
            user=*) user=$value && conninfo="$conninfo $pair" ;;
            sslkey_der=*) ;;
            *) conninfo="$conninfo $pair" ;;
        esac
    done
    case $conninfo in
        *sslnegotiation=*) [ "$major" -ge 17 ] || { echo "none $name" && continue; } ;;
    esac
    got=$(psql -X -q -A -t -c 'SELECT current_user' "$conninfo" 2>&1 </dev/null) && status=ok || status=refused
    if [ $status != "$expect" ]; then
        echo "FAILED $name is $status: $got" | tr '\n' ' ' && echo
    elif [ $status = ok ] && [ "$got" != "$user" ]; then
        echo "FAILED $name logged in as $got"
    else
        echo "ok $name"
    fi
done
