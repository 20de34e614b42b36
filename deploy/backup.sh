#!/bin/sh
# Copies a home folder, also while a proxy serves it and a round runs:  sh deploy/backup.sh HOME FOLDER
# FOLDER must not be there yet. What it holds afterwards is a home: moved into its place, a proxy starts on it.
set -eu
home=$1 to=$2
umask 077
mkdir "$to"

# A database under way is more than its file: SQLite itself copies it, as it is at one moment, and nobody waits.
for name in records.db responses.db; do
  if [ -f "$home/$name" ]; then
    "${PYTHON:-python3}" -c 'import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b); b.close()' \
      "$home/$name" "$to/$name"
  fi
done

# Which bundle is live is read before the bundles are copied: what a pointer named then is there, what is published
# meanwhile is only spare.
if [ -d "$home/bundles" ]; then
  mkdir "$to/pointers"
  for policy in "$home"/bundles/*/; do
    for file in "$policy"*.json; do
      if [ -f "$file" ]; then
        mkdir -p "$to/pointers/$(basename "$policy")"
        cp -p "$file" "$to/pointers/$(basename "$policy")/"
      fi
    done
  done
  cp -R -p "$home/bundles" "$to/"
  cp -R -p "$to/pointers/." "$to/bundles/"
  rm -r "$to/pointers"
fi
for name in work datasets.jsonl; do
  if [ -e "$home/$name" ]; then cp -R -p "$home/$name" "$to/"; fi
done
