#!/bin/sh
# Builds the image from a base image named by its digest, and refuses anything else.
#   sh deploy/build_image.sh sha256:DIGEST [OPTION for podman or docker build]…
set -eu
digest=${1:-}
if ! printf '%s' "$digest" | LC_ALL=C grep -qxE 'sha256:[0-9a-f]{64}' ||
    [ "$(printf '%s' "$digest" | wc -l)" -ne 0 ]; then
    echo "build_image: '$digest' given; the base image's digest is needed (sha256: and 64 hex digits), as a tag may be another image tomorrow: make image DIGEST=sha256:..." >&2
    exit 2
fi
shift
cd "$(dirname "$0")/.."
for builder in podman docker; do
    if command -v "$builder" >/dev/null; then
        exec "$builder" build --build-arg "DIGEST=$digest" -f deploy/Containerfile -t cloister "$@" .
    fi
done
echo "build_image: neither podman nor docker is installed; install one of them" >&2
exit 1
