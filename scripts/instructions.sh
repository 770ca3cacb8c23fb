#!/bin/sh
# Counts the instructions of the hot path's pieces with callgrind and writes benches/INSTRUCTIONS.md.
#
# Each piece runs twice, for a small and a large number of times; the difference, by the difference of the numbers, is
# what one time takes, without what is made beforehand. The program is linked by the system's linker: valgrind before
# 3.21 cannot read the symbols of what rust-lld links.
set -eu
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/instructions
few=100
many=1100
mkdir -p "$out"

program=$("${CARGO:-cargo}" rustc --profile bench --bench instructions --message-format=json-render-diagnostics -- \
    -Clinker-features=-lld | sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')
[ -x "$program" ] || { echo "instructions: nothing was built" >&2; exit 1; }

# Instructions of piece $1, $2 times; the counts by function stay in $out/counts.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$out/counts" "$program" "$1" "$2" 2>"$out/log" ||
        { cat "$out/log" >&2; exit 1; }
    sed -n 's/^summary: *\([0-9]*\).*/\1/p' "$out/counts"
}

# The source files in which piece $1 spends most: its counts a time, by file, where they were inlined from.
by_file() {
    for times in $few $many; do
        count "$1" $times >/dev/null
        callgrind_annotate --threshold=100 --auto=no "$out/counts" | sed -n 's/^ *\([0-9,]*\) *([^)]*) *\([^ :]*\):.*/\1 \2/p' |
            tr -d , >"$out/by-file-$times"
    done
    awk -v few=$few -v many=$many '
        { file = $2; sub(/.*\/(registry\/src\/[^\/]*|rustc\/[^\/]*|lib\/rustlib\/src\/rust)\//, "", file) }
        file ~ /^\?/ { file = "libraries of the system" }
        file ~ /^(\.\/|nptl\/|sysdeps\/|malloc\/|string\/|socket\/|io\/)/ { file = "C library" }
        FILENAME ~ many "$" { sum[file] += $1; next }
        { sum[file] -= $1 }
        END { for (file in sum) { n = sum[file] / (many - few); if (n >= 20) printf "| `%s` | %d |\n", file, n } }
    ' "$out/by-file-$few" "$out/by-file-$many" | sort -t'|' -k3,3nr | head -n 16
}

{
    echo "# Instructions of the hot path"
    echo
    echo "Written by \`make instructions\`: instructions outside the kernel, counted by callgrind, for one time of each"
    echo "piece. A transaction runs through the real relay and tokio's event loop between two TCP connections; the far"
    echo "ends are in the same thread and counted too (four calls). A pool's checkout and release are not in it."
    echo
    echo "pooler $(git describe --always --dirty), $(rustc --version), $(valgrind --version), $(uname -m)"
    echo
    echo "| piece | instructions |"
    echo "|---|---|"
    "$program" | while read -r piece; do
        a=$(count "$piece" $few)
        b=$(count "$piece" $many)
        echo "| $piece | $(((b - a) / (many - few))) |"
    done
    for piece in "transaction, simple" "transaction, prepared"; do
        printf '\n## Where a %s, spends them\n\n| source file | instructions |\n|---|---|\n' "$piece"
        by_file "$piece"
    done
} >"$out/table"
mv "$out/table" benches/INSTRUCTIONS.md
cat benches/INSTRUCTIONS.md
