#!/usr/bin/env bash
# The test command: installs what the tests need and runs every check, real virtual machines
# included. On a machine that has it all, nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_packages gcc libc6-dev qemu-system-x86 e2fsprogs mmdebstrap uidmap util-linux ca-certificates \
    qemu-utils iproute2 nftables iputils-ping busybox-static cpio jq socat tmux openssh-client openssh-server rsync git bind9-dnsutils \
    docker-registry skopeo umoci buildah apache2-utils openssl
need_cargo
cargo nextest --version >/dev/null 2>&1 || { say "Installing cargo-nextest"; cargo install --locked cargo-nextest; }
cargo deny --version >/dev/null 2>&1 || { say "Installing cargo-deny"; cargo install --locked cargo-deny; }

say "Format";  cargo fmt --all --check
say "Clippy";  cargo clippy --workspace --all-targets --locked -- -D warnings
say "Docs";    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
# The policy is of every platform that the lock file speaks of; a build fetches only what this one needs.
say "Policy";  cargo fetch --locked --quiet; cargo deny --offline check bans licenses sources
# The advisory database comes from the network; without it the other checks still count.
if cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; else echo "advisories: skipped, the database cannot be fetched"; fi

# Their one crate more comes from the network, too. All others are those of this lock file.
say "Fuzz targets"
cp Cargo.lock fuzz/Cargo.lock
if cargo fetch --manifest-path fuzz/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" >/dev/null 2>&1; then
    cargo check --manifest-path fuzz/Cargo.toml --no-default-features --quiet --target-dir "${CARGO_TARGET_DIR:-target}"
else
    echo "skipped, their dependencies cannot be fetched"
fi

need_guests

say "Tests"
cargo nextest run --workspace --locked --no-fail-fast
cargo test --workspace --locked --doc --quiet
