#!/bin/sh
# Checks who made this folder and that nothing in it was changed; then installs from it alone.
#   sh install.sh FINGERPRINT VENV      VENV: a new folder, for the virtual environment
#   sh install.sh --check FINGERPRINT   only checks
# FINGERPRINT is told by who made the folder, over another channel (telephone). Needs openssl and
# python3, and refuses where one is missing. To check this file itself before it runs, type what
# docs/deployment.md shows, or let somebody read it.
set -eu

fail() {
    echo "install.sh: $1; nothing was installed" >&2
    exit 1
}

only=no
if [ "${1:-}" = --check ]; then
    only=yes
    shift
fi
[ -n "${1:-}" ] || fail "no fingerprint given; ask who made this folder for it by telephone: sh install.sh FINGERPRINT VENV"
[ "$only" = yes ] || [ -n "${2:-}" ] || fail "no VENV given; name a new folder: sh install.sh FINGERPRINT VENV"
for tool in openssl python3; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing, and nothing is installed unchecked; install $tool"
done
python3 -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version 2>&1) is too old; install Python 3.11 or newer"
venv=${2:-none}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
[ "$only" = yes ] || [ ! -e "$venv" ] || fail "$venv is there already; name a new folder"
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

openssl x509 -in signer.crt -outform DER -out "$work/signer" 2>/dev/null &&
    openssl x509 -in signer.crt -noout -pubkey >"$work/key" 2>/dev/null ||
    fail "signer.crt cannot be read; ask for the folder anew"
found=$(openssl dgst -sha256 -r "$work/signer" | cut -c 1-64)
told=$(printf %s "$1" | tr 'A-F' 'a-f' | tr -cd '0-9a-f')
[ "$told" = "$found" ] || fail "made by somebody else: the fingerprint here is $found, you gave $told"
openssl dgst -sha256 -verify "$work/key" -signature SHA256SUMS.sig SHA256SUMS >/dev/null 2>&1 ||
    fail "SHA256SUMS is not signed by who made this folder; ask for it anew"

python3 -I -S - <<'END' || fail "the folder was changed since it was made; ask for it anew"
import hashlib, os, re, sys

with open("SHA256SUMS", encoding="utf-8", newline="") as file:
    first, *lines = file.read().removesuffix("\n").split("\n")
if not first.startswith("# cloister bundle 1, made "):
    sys.exit("SHA256SUMS: of another version")
listed = {}
for line in lines:
    match = re.fullmatch("([0-9a-f]{64})  ([^\\\\\x00-\x1f]+)", line)
    if match is None or match[2] in listed:
        sys.exit("SHA256SUMS: not as it was written")
    listed[match[2]] = match[1]
found = set()
for folder, _, names in os.walk(".", onerror=lambda error: sys.exit(str(error))):
    for name in names:
        found.add(os.path.relpath(os.path.join(folder, name), "."))
for folder, folders, names in os.walk("."):
    for name in folders + names:
        path = os.path.join(folder, name)
        if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
            sys.exit(f"{path}: neither file nor folder")
for name in sorted(found ^ {*listed, "SHA256SUMS", "SHA256SUMS.sig"}):
    sys.exit(f"{name}: {'not of this folder' if name in found else 'missing'}")
for name, expected in listed.items():
    with open(name, "rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != expected:
        sys.exit(f"{name}: another content")
print(f"{len(listed)} files as they were made ({first.partition(', ')[2]})")
END

[ "$only" = no ] || exit 0
python3 -m venv "$venv"
"$venv/bin/python" -m pip --isolated --quiet --disable-pip-version-check install \
    --no-index --find-links wheels --require-hashes -r requirements.txt ||
    { rm -rf "$venv"; fail "pip refused a package"; }
echo "installed in $venv"
[ ! -d model ] || echo "the base model is in $PWD/model: site.model in site.toml names it"
