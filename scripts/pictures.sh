#!/bin/sh
# Takes the pictures of the status page that the README shows, into docs/pictures: of a pooler before a primary and two
# replicas, under pgbench, with a pool that is full. Takes POOLER_PICTURE_SECONDS (300) and a little.
set -eu
cd "$(dirname "$0")/.."
exec "${CARGO:-cargo}" test --test page -- --ignored --nocapture pictures_for_the_readme
